"""What webhooks does when time comes: sends and tries again, forgets what was kept long enough, disables the dead."""

from __future__ import annotations

from services.webhooks.model import feed, stream
from services.webhooks.model.endpoint import LOOK, Endpoint
from services.webhooks.model.feed import SEND, Feed
from services.webhooks.model.stream import PRUNE, Stream
from services.webhooks.sender import Sender
from shared.kit.jobs import Jobs, call, timer
from shared.kit.pacing import Allowance

IN_FLIGHT = 128
"""Requests of one process: so many that endpoints which do not answer, each up to its own cap, leave places."""

_NEVER = 1_000_000_000
"""No breaker: each feed waits longer and longer by itself, and its endpoint's cap keeps it from the others."""


def jobs(sender: Sender, *, rate: float, at_once: int) -> tuple[Jobs, ...]:
    """The job tables; one endpoint gets ``rate`` events a second and ``at_once`` at the same time, at the most.

    Receivers deduplicate by webhook-id; that an answer was lost still comes to ``settle``, which counts the tries.
    """
    allowed = Allowance(rate=rate, burst=float(at_once), concurrency=at_once, failures=_NEVER)
    return (
        Jobs(
            Feed,
            call(
                SEND,
                prepare=feed.prepare,
                check=feed.check,
                perform=sender.send,
                settle=feed.settle,
                wants=feed.facts_of,
                idempotent=False,
                concurrency=IN_FLIGHT,
                pace=lambda document: (document.endpoint_id, allowed),
            ),
        ),
        Jobs(Stream, timer(PRUNE, stream.prune)),
        Jobs(Endpoint, timer(LOOK, feed.look, wants=feed.signs_of_life)),
    )

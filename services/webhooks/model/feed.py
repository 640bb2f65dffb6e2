"""A feed: what is to be sent to one endpoint about one document, one event after the other.

The next event is not sent before the former one was taken, or given up after a day: so the order per referral holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from services.webhooks.model.endpoint import HOUR, LOOK, LOOK_EVERY, Endpoint, EndpointState, disable, hour_of
from services.webhooks.model.stream import Stream
from shared.contracts.webhooks import DisabledFor, EndpointChanged, FeedHeld, WebhookDue, WebhookGivenUp
from shared.kit.decisions import Due, Facts, Ref, Refused, Unanswered, Want, Where
from shared.kit.document import Document, Part

SEND = "send"
RETRY_FOR = timedelta(days=1)
"""How long an event is tried before it is given up."""
_RECENT = 2
_HOURS = int(RETRY_FOR / HOUR) + _RECENT
"""An endpoint looks at what was given up in this hour and the last, and at what it took since that was first tried."""

_FIRST, _LONGEST = timedelta(seconds=5), timedelta(minutes=15)
"""The first wait, doubling, and the longest: so long after its return an endpoint has what it missed."""

GIVEN_UP_SHOWN = 20
NOT_KEPT = "not-kept"


class FeedState(StrEnum):
    """What it is about."""

    IDLE = "idle"
    SENDING = "sending"
    """Something is to be sent, or tried again."""
    HELD = "held"
    """Something is to be sent once the endpoint is active again."""
    CLOSED = "closed"


class GivenUp(Part):
    """An event that the endpoint did not get."""

    sequence: int
    event_id: str | None
    event_type: str | None
    at: datetime
    reason: str


class Feed(Document):
    """One endpoint's view of one stream."""

    collection: ClassVar[str] = "feed"
    indexes: ClassVar[tuple[str, ...]] = ("endpoint_id", "held_by", "trouble", "taken_in")
    callees: ClassVar = {"": "endpoint_id"}
    transitions: ClassVar = {
        FeedState.IDLE: frozenset({FeedState.SENDING}),
        FeedState.SENDING: frozenset({FeedState.IDLE, FeedState.HELD, FeedState.CLOSED}),
        FeedState.HELD: frozenset({FeedState.SENDING, FeedState.CLOSED}),
        FeedState.CLOSED: frozenset(),
    }
    terminal: ClassVar = frozenset({FeedState.CLOSED})

    state: FeedState = FeedState.SENDING
    endpoint_id: str
    stream_id: str
    pending: tuple[int, ...] = ()
    """The sequences that are to be sent, in this order."""
    sending: int | None = None
    """The one that is being tried."""
    since: datetime | None = None
    tries: int = 0
    reason: str | None = None
    """How its last attempt ended, as a code."""
    given_up: tuple[GivenUp, ...] = ()
    held_by: str | None = None
    """The endpoint, while this is held: what it is found by when that is active again."""
    trouble: str | None = None
    """``in_hour`` of the last event given up, or ``gone_for`` after 410, until one is taken."""
    taken_in: str | None = None
    """``in_hour`` of the last event taken."""
    taken_at: datetime | None = None

    def slot_key(self) -> str:
        """One worker sends to an endpoint, and so knows how much is on its way there."""
        return self.endpoint_id


@dataclass(frozen=True, slots=True)
class Taken:
    """The endpoint answered 2xx."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The endpoint answered something else than 2xx; ``gone``: 410, it wants no more of anything."""

    reason: str
    gone: bool = False


Outcome = Taken | Declined | Refused | Unanswered


def gone_for(endpoint_id: str) -> str:
    """What a feed is found by whose endpoint said 410."""
    return f"{endpoint_id}:gone"


def in_hour(endpoint_id: str, at: datetime) -> str:
    """What a feed is found by whose endpoint took an event, or had one given up, in an hour."""
    return f"{endpoint_id}:{hour_of(at)}"


def facts_of(message: object, document: Feed | None) -> Iterable[Want]:
    """The endpoint, and the stream that the events are kept in."""
    if document is None:
        return ()
    return (Ref(Endpoint, document.endpoint_id), Ref(Stream, document.stream_id))


# -- what is to be sent ----------------------------------------------------------------------------------------


def take(document: Feed | None, event: WebhookDue, facts: Facts, now: datetime) -> Feed:
    """One more event is to be sent: behind those that came before it in its document's order."""
    if document is None:
        document = Feed(id=event.feed_id, endpoint_id=event.endpoint_id, stream_id=facts.envelope.subject)
        document.wake(SEND, now)
    if event.sequence not in document.pending:
        document.pending = tuple(sorted((*document.pending, event.sequence)))
    if document.state is FeedState.IDLE:
        document.move(FeedState.SENDING)
        document.wake(SEND, now)
    return document


def reconsider(document: Feed, event: FeedHeld | EndpointChanged, facts: Facts, now: datetime) -> Feed:
    """Look at the endpoint again: it may be active by now, or removed.

    One that said 410 is only asked again once it was resumed.
    """
    endpoint = facts.get(Endpoint, document.endpoint_id)
    if endpoint is None or endpoint.state is EndpointState.REMOVED:
        return _close(document)
    gone = document.trouble == gone_for(document.endpoint_id)
    if endpoint.state is not EndpointState.ACTIVE or (gone and isinstance(event, FeedHeld)):
        return document
    document.move(FeedState.SENDING)
    document.held_by = document.trouble = None
    _begin_anew(document)
    document.wake(SEND, now)
    return document


def endpoint_of(message: object, document: Feed | None) -> Iterable[Want]:
    """The endpoint alone."""
    return () if document is None else (Ref(Endpoint, document.endpoint_id),)


# -- sending ---------------------------------------------------------------------------------------------------


def prepare(document: Feed, due: Due, facts: Facts, now: datetime) -> Feed:
    """Intend to send the first event that is to be sent, where the endpoint is active."""
    endpoint = facts.get(Endpoint, document.endpoint_id)
    if endpoint is None or endpoint.state is EndpointState.REMOVED:
        return _close(document)
    if endpoint.state is not EndpointState.ACTIVE:
        return _hold(document)
    stream = facts.get(Stream, document.stream_id)
    while document.pending and (stream is None or stream.at(document.pending[0]) is None):
        _give_up(document, stream, document.pending[0], NOT_KEPT, now)
    if not document.pending:
        document.move(FeedState.IDLE)
        return document
    if document.sending != document.pending[0]:
        _begin_anew(document)
        document.sending, document.since = document.pending[0], now
    document.intend(SEND, now)
    return document


def check(document: Feed, facts: Facts, now: datetime) -> bool:
    """Whether the endpoint is still active, read once more after the intention was written."""
    endpoint = facts.get(Endpoint, document.endpoint_id)
    return endpoint is not None and endpoint.state is EndpointState.ACTIVE


def settle(document: Feed, outcome: Outcome, facts: Facts, now: datetime) -> Feed:
    """Taken: the next one follows. Else it is tried again, later and later, for a day."""
    sequence = document.sending
    if sequence is None:
        document.wake(SEND, now)
        return document
    if isinstance(outcome, Taken):
        document.pending = tuple(each for each in document.pending if each != sequence)
        document.trouble = None
        document.taken_in, document.taken_at = in_hour(document.endpoint_id, now), now
        return _go_on(document, now)
    document.tries += 1
    document.reason = outcome.reason
    if isinstance(outcome, Declined) and outcome.gone:
        document.trouble = gone_for(document.endpoint_id)
        return _hold(document)
    last = (document.since or now) + RETRY_FOR
    if now >= last:
        _give_up(document, facts.get(Stream, document.stream_id), sequence, outcome.reason, now)
        return _go_on(document, now)
    named = outcome.retry_after if isinstance(outcome, Refused) else None
    wait = backoff(document.id, document.tries)
    if named is not None:
        wait = max(wait, min(timedelta(seconds=named), timedelta(hours=1)))
    document.wake(SEND, min(now + wait, last))
    return document


def backoff(feed: str, tries: int) -> timedelta:
    """How long to wait after so many tries: doubling, and a fifth more or less by hash, so that feeds do not march."""
    wait = min(_LONGEST, _FIRST * (1 << min(tries - 1, 16)))
    return wait * (0.8 + 0.4 * (zlib.crc32(f"{feed} {tries}".encode()) / 0xFFFFFFFF))


def _go_on(document: Feed, now: datetime) -> Feed:
    _begin_anew(document)
    if document.pending:
        document.wake(SEND, now)
    else:
        document.move(FeedState.IDLE)
    return document


def _begin_anew(document: Feed) -> None:
    document.sending = document.since = document.reason = None
    document.tries = 0


def _give_up(document: Feed, stream: Stream | None, sequence: int, reason: str, now: datetime) -> None:
    """Leave an event out, for all to see. One that is not kept any more has nothing left to be told by."""
    kept = stream.at(sequence) if stream is not None else None
    document.pending = tuple(each for each in document.pending if each != sequence)
    told = GivenUp(
        sequence=sequence,
        event_id=kept.id if kept else None,
        event_type=kept.type if kept else None,
        at=now,
        reason=reason,
    )
    document.given_up = (*document.given_up, told)[-GIVEN_UP_SHOWN:]
    if kept is None or stream is None:
        return
    document.trouble = in_hour(document.endpoint_id, now)
    document.record(
        WebhookGivenUp(
            endpoint_id=document.endpoint_id,
            about=stream.subject,
            event_id=kept.id,
            event_type=kept.type,
            since=document.since or now,
            tries=document.tries,
            reason=reason,
        )
    )


def _hold(document: Feed) -> Feed:
    """Wait for the endpoint. It is read again in the reaction to FeedHeld, after this was written."""
    document.move(FeedState.HELD)
    document.held_by = document.endpoint_id
    document.rest(SEND)
    document.record(FeedHeld(feed_id=document.id, endpoint_id=document.endpoint_id))
    return document


def _close(document: Feed) -> Feed:
    document.move(FeedState.CLOSED)
    document.pending = ()
    document.held_by = document.trouble = document.taken_in = None
    _begin_anew(document)
    document.rest(SEND)
    return document


# -- is the endpoint any use? ----------------------------------------------------------------------------------


def signs_of_life(message: Due, endpoint: Endpoint) -> Iterable[Want]:
    """A feed whose endpoint said 410, and those with an event given up just now; or, once there was one, a feed that
    the endpoint took an event of in the hour that is asked about.

    The endpoint asks its feeds: where they told it, it would have to remember the last event of each.
    """
    if endpoint.asking is not None:
        return (_taken_in(endpoint, message.at, endpoint.asking),)
    return (_gone(endpoint), *_given_up(endpoint, message.at))


def _gone(endpoint: Endpoint) -> Where:
    return Where(Feed, "trouble", gone_for(endpoint.id), 1)


def _given_up(endpoint: Endpoint, at: datetime) -> list[Where]:
    return [Where(Feed, "trouble", in_hour(endpoint.id, at - back * HOUR), 1) for back in range(_RECENT)]


def _taken_in(endpoint: Endpoint, at: datetime, back: int) -> Where:
    return Where(Feed, "taken_in", in_hour(endpoint.id, at - back * HOUR), 1)


def look(endpoint: Endpoint, due: Due, facts: Facts, now: datetime) -> Endpoint:
    """Disable an endpoint that said 410, or that had an event given up and took nothing since that was first tried.

    It asks about one hour at a time, the last one first: of a busy endpoint that is all, whatever one event's trouble.
    """

    def found(where: Where) -> bool:
        return bool(facts.where(Feed, where.field, where.value, where.limit))

    back, endpoint.asking = endpoint.asking, None
    endpoint.wake(LOOK, now + LOOK_EVERY)
    if now - due.at > HOUR:
        return endpoint  # We were away ourselves: what was asked about is not what was meant.
    if back is not None:
        if found(_taken_in(endpoint, due.at, back)):
            return endpoint
        if back == _HOURS:
            return disable(endpoint, DisabledFor.UNREACHABLE, now)
        return _ask(endpoint, back + 1, now)
    if found(_gone(endpoint)):
        return disable(endpoint, DisabledFor.GONE, now)
    if now - endpoint.active_since >= RETRY_FOR and any(map(found, _given_up(endpoint, due.at))):
        return _ask(endpoint, 0, now)
    return endpoint


def _ask(endpoint: Endpoint, back: int, now: datetime) -> Endpoint:
    endpoint.asking = back
    endpoint.wake(LOOK, now)
    return endpoint

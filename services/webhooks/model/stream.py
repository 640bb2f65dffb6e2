"""A stream: the public events of one document of another service, kept for a week as they came."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from services.webhooks.model.endpoint import KEPT_FOR, Endpoint, hour_of
from shared.contracts.base import Event
from shared.contracts.webhooks import ReplayWanted, WebhookDue
from shared.kit.decisions import Due, Facts, Ref, Want, Where
from shared.kit.document import Document, Part, derived_id

PRUNE = "prune"
_WEEK = timedelta(days=7)


class StreamState(StrEnum):
    """Whether anything is kept in it."""

    KEEPING = "keeping"
    EMPTY = "empty"


class Kept(Part):
    """An event as it came. ``data`` is its JSON; ``time`` is when it happened."""

    sequence: int
    id: str
    type: str
    time: datetime
    data: str
    trace: str | None = None


class Stream(Document):
    """What happened to one document (``subject``), as it was told on one topic."""

    collection: ClassVar[str] = "stream"
    indexes: ClassVar[tuple[str, ...]] = ("hours",)
    transitions: ClassVar = {
        StreamState.KEEPING: frozenset({StreamState.EMPTY}),
        StreamState.EMPTY: frozenset({StreamState.KEEPING}),
    }

    state: StreamState = StreamState.KEEPING
    topic: str
    subject: str
    kept: tuple[Kept, ...] = ()
    hours: tuple[str, ...] = ()
    """The hours that kept events happened in: what a replay finds it by."""

    def at(self, sequence: int) -> Kept | None:
        """The event of a sequence, None where it is not kept any more."""
        return next((kept for kept in self.kept if kept.sequence == sequence), None)


def stream_id(topic: str, subject: str) -> str:
    """The stream of one document's events on one topic."""
    return derived_id("stream", topic, subject)


def feed_id(endpoint: str, stream: str) -> str:
    """The feed of one stream to one endpoint."""
    return derived_id("feed", endpoint, stream)


def those_who_want(event: Event, document: Stream | None) -> Iterable[Want]:
    """The endpoints that get events of this type."""
    return (Where(Endpoint, "wanted", event.type),)


def keep(document: Stream | None, event: Event, facts: Facts, now: datetime) -> Stream:
    """Keep an event, and have it sent to everybody who wants its type."""
    came = facts.envelope
    if document is None:
        document = Stream(id=facts.id, topic=came.topic, subject=came.subject)
    if document.state is StreamState.EMPTY:
        document.move(StreamState.KEEPING)
    kept = Kept(sequence=came.sequence, id=came.id, type=event.type, time=came.time, data=came.data, trace=came.trace)
    _hold(document, (*document.kept, kept))
    for endpoint in facts.where(Endpoint, "wanted", event.type):
        _send(document, endpoint, kept, again=False)
    return document


def _send(document: Stream, endpoint: Endpoint, kept: Kept, *, again: bool) -> None:
    feed = feed_id(endpoint.id, document.id)
    document.record(WebhookDue(feed_id=feed, endpoint_id=endpoint.id, sequence=kept.sequence, again=again))


def _hold(document: Stream, kept: tuple[Kept, ...]) -> None:
    document.kept = kept
    document.hours = tuple(sorted({hour_of(each.time) for each in kept}))
    document.rest(PRUNE)
    if kept:
        document.wake(PRUNE, prune_at(min(each.time for each in kept)))


def prune_at(oldest: datetime) -> datetime:
    """When to look what need not be kept any more: on a Monday, so that time stops for it once a week at the most."""
    end = oldest + KEPT_FOR
    monday = end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=end.weekday())
    return monday + _WEEK


def prune(document: Stream, due: Due, facts: Facts, now: datetime) -> Stream:
    """Forget what was kept long enough."""
    _hold(document, tuple(kept for kept in document.kept if kept.time > now - KEPT_FOR))
    if not document.kept:
        document.move(StreamState.EMPTY)
    return document


def who_asks(event: ReplayWanted, document: Stream | None) -> Iterable[Want]:
    """The endpoint that wants a replay."""
    return (Ref(Endpoint, event.endpoint_id),)


def replay(document: Stream, event: ReplayWanted, facts: Facts, now: datetime) -> Stream:
    """Have sent again what is kept of the hour, oldest first."""
    endpoint = facts.get(Endpoint, event.endpoint_id)
    if endpoint is None:
        return document
    for kept in sorted(document.kept, key=lambda each: each.sequence):
        if kept.type in endpoint.wanted and kept.time >= event.since and hour_of(kept.time) == event.hour:
            _send(document, endpoint, kept, again=True)
    return document

"""Events of webhooks: an endpoint that was disabled, an event that was given up; private ones on a work topic."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from .base import Event


class DisabledFor(StrEnum):
    """Why an endpoint was disabled by CareRelay."""

    GONE = "gone"
    """It answered 410: it wants no more."""
    UNREACHABLE = "unreachable"
    """It took nothing for a whole day, and events were given up."""


class EndpointDisabled(Event):
    """Nothing is sent to an endpoint any more until its owner resumes it (subject: the endpoint)."""

    type: ClassVar[str] = "endpoint.disabled.v1"
    topic: ClassVar[str] = "webhooks.events"
    endpoint_id: str
    owner: str
    reason: DisabledFor


class WebhookGivenUp(Event):
    """An endpoint did not take an event for a day; the next of the same document follows (subject: the feed).

    ``about`` is the document that the event is about, ``reason`` a code for how the last attempt ended.
    """

    type: ClassVar[str] = "webhook.given-up.v1"
    topic: ClassVar[str] = "webhooks.events"
    endpoint_id: str
    about: str
    event_id: str
    event_type: str
    since: datetime
    tries: int
    reason: str


class WebhookDue(Event):
    """A kept event is to be sent to an endpoint (subject: the stream it is kept in). Private to webhooks.

    ``again`` says that a replay asks for it.
    """

    type: ClassVar[str] = "webhook.due.v1"
    topic: ClassVar[str] = "webhooks.work"
    feed_id: str
    endpoint_id: str
    sequence: int
    again: bool = False


class FeedHeld(Event):
    """A feed waits for its endpoint to be active again (subject: the feed). Private to webhooks.

    It reads the endpoint once more now that this is written.
    """

    type: ClassVar[str] = "feed.held.v1"
    topic: ClassVar[str] = "webhooks.work"
    feed_id: str
    endpoint_id: str


class EndpointChanged(Event):
    """An endpoint is active again, or removed (subject: the endpoint). Private to webhooks."""

    type: ClassVar[str] = "endpoint.changed.v1"
    topic: ClassVar[str] = "webhooks.work"
    endpoint_id: str


class ReplayWanted(Event):
    """What was kept of one hour is to be sent again (subject: the endpoint). Private to webhooks.

    ``hour`` reads ``2026-11-28T13``; of it, events from ``since`` on.
    """

    type: ClassVar[str] = "endpoint.replay-wanted.v1"
    topic: ClassVar[str] = "webhooks.work"
    endpoint_id: str
    hour: str
    since: datetime

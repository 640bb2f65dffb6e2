"""What webhooks does with events: keeps every public one, and has it sent to whoever wants its type."""

from __future__ import annotations

from services.webhooks.model import feed, stream
from services.webhooks.model.feed import Feed, FeedState
from services.webhooks.model.stream import Stream
from shared.contracts.base import Event
from shared.contracts.snapshot import events
from shared.contracts.webhooks import EndpointChanged, FeedHeld, ReplayWanted, WebhookDue
from shared.kit.reactions import Field, OfSubject, Reactions, on

OURS = "webhooks.events"

SUBSCRIBABLE: dict[str, type[Event]] = {
    type: event for type, event in events().items() if event.topic.endswith(".events") and event.topic != OURS
}
"""What may be subscribed to: the public events of the other services, which hold nothing personal."""

REACTIONS = (
    Reactions(
        Stream,
        *(
            on(event, OfSubject(stream.stream_id), stream.keep, creates=True, wants=stream.those_who_want)
            for event in SUBSCRIBABLE.values()
        ),
        on(ReplayWanted, Field("hours", lambda e: e.hour), stream.replay, wants=stream.who_asks),
    ),
    Reactions(
        Feed,
        on(
            WebhookDue,
            lambda e: (e.feed_id,),
            feed.take,
            when={FeedState.IDLE, FeedState.SENDING, FeedState.HELD},
            creates=True,
        ),
        on(FeedHeld, lambda e: (e.feed_id,), feed.reconsider, when={FeedState.HELD}, wants=feed.endpoint_of),
        on(
            EndpointChanged,
            Field("held_by", lambda e: e.endpoint_id),
            feed.reconsider,
            when={FeedState.HELD},
            wants=feed.endpoint_of,
        ),
    ),
)

"""Events of notifications: what was sent, what was not, and what came back."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from .base import Event
from .intake import Channel


class DeliveryKind(StrEnum):
    """Why a message is sent."""

    CONFIRMATION = "confirmation"
    REMINDER = "reminder"
    CANCELLATION = "cancellation"


class ReplyIntent(StrEnum):
    """What a reply asks for; ``other`` is for a person to read."""

    CONFIRM = "confirm"
    CANCEL = "cancel"
    STOP = "stop"
    HELP = "help"
    OTHER = "other"


class DeliveryEvent(Event):
    """About one message to one person; the subject is ``delivery_id``."""

    topic: ClassVar[str] = "notifications.events"
    delivery_id: str
    appointment_id: str
    patient_id: str
    kind: DeliveryKind
    channel: Channel | None = None


class DeliveryAccepted(DeliveryEvent):
    """The gateway took the message."""

    type: ClassVar[str] = "delivery.accepted.v1"


class DeliveryDelivered(DeliveryEvent):
    """The gateway reported that it reached the person."""

    type: ClassVar[str] = "delivery.delivered.v1"


class DeliveryFailed(DeliveryEvent):
    """The gateway refused it for good, or reported that it did not arrive. ``reason`` is a code."""

    type: ClassVar[str] = "delivery.failed.v1"
    reason: str


class DeliveryDropped(DeliveryEvent):
    """Not sent, on purpose: ``cancelled``, ``moved``, ``past-usefulness``, ``no-channel``, ``revoked``, ``limit``."""

    type: ClassVar[str] = "delivery.dropped.v1"
    reason: str


class DeliveryUnknown(DeliveryEvent):
    """The answer was lost and the gateway cannot deduplicate: it may have been sent. Never sent again."""

    type: ClassVar[str] = "delivery.unknown.v1"


class DeliveryEscalated(DeliveryEvent):
    """A waiting state outlived its deadline: once per wait. ``owner`` is the role that owes the next step."""

    type: ClassVar[str] = "delivery.escalated.v1"
    state: str
    since: datetime
    deadline: datetime
    owner: str


class ReplyReceived(Event):
    """A person answered a message (subject: the recipient, whose id is ``patient_id``)."""

    type: ClassVar[str] = "reply.received.v1"
    topic: ClassVar[str] = "notifications.events"
    patient_id: str
    appointment_id: str | None = None
    intent: ReplyIntent


class ChannelRevoked(Event):
    """A person told us to stop using a channel (subject: the recipient, whose id is ``patient_id``)."""

    type: ClassVar[str] = "channel.revoked.v1"
    topic: ClassVar[str] = "notifications.events"
    patient_id: str
    channel: Channel


class WorkEvent(Event):
    """Between the documents of notifications: visit, recipient and delivery. Private to notifications."""

    topic: ClassVar[str] = "notifications.work"


class DeliveryPlanned(WorkEvent):
    """A visit wants a message (subject: the visit, whose id is ``appointment_id``).

    ``planned_for`` is when it should go, before the recipient's own hours are looked at; from ``useful_until`` on it
    is no longer worth sending. ``ahead_seconds`` is how long before the visit a reminder reminds.
    """

    type: ClassVar[str] = "delivery.planned.v1"
    delivery_id: str
    appointment_id: str
    patient_id: str
    occurrence: int
    kind: DeliveryKind
    ahead_seconds: int | None = None
    planned_at: datetime
    planned_for: datetime
    useful_until: datetime
    timezone: str = "UTC"


class DeliveriesWithdrawn(WorkEvent):
    """A visit no longer wants these messages (subject: the visit). ``reason`` as in ``DeliveryDropped``."""

    type: ClassVar[str] = "deliveries.withdrawn.v1"
    appointment_id: str
    delivery_ids: tuple[str, ...]
    reason: str


class DeliveryUnaddressed(WorkEvent):
    """A delivery was stored without its recipient being known, and asks once more (subject: the delivery)."""

    type: ClassVar[str] = "delivery.unaddressed.v1"
    delivery_id: str


class DeliveryDue(Event):
    """A message is to be sent now (subject: the delivery), by the channel that the topic is named for. Private.

    Shared out by person: one sender has all messages of a person that go by its channel.
    """

    delivery_id: str
    attempt_id: str
    patient_id: str

    def key(self) -> str:
        """The person's id."""
        return self.patient_id


class TextDue(DeliveryDue):
    """A text is to be sent."""

    type: ClassVar[str] = "text.due.v1"
    topic: ClassVar[str] = "notifications.deliveries.sms"


class CallDue(DeliveryDue):
    """A call is to be made."""

    type: ClassVar[str] = "call.due.v1"
    topic: ClassVar[str] = "notifications.deliveries.voice"


class MailDue(DeliveryDue):
    """An e-mail is to be sent."""

    type: ClassVar[str] = "mail.due.v1"
    topic: ClassVar[str] = "notifications.deliveries.email"


class LetterDue(DeliveryDue):
    """A letter is to be posted."""

    type: ClassVar[str] = "letter.due.v1"
    topic: ClassVar[str] = "notifications.deliveries.letter"


class RecipientKnown(WorkEvent):
    """What is known of a recipient, or what they allow, has changed (subject: the recipient)."""

    type: ClassVar[str] = "recipient.known.v1"
    patient_id: str

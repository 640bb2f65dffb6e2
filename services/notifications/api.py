"""What the gateway tells us (status, replies), and what coordinators look at. No listing holds personal data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from services.notifications.model import delivery as deliveries
from services.notifications.model import intents, recipient, stray
from services.notifications.model.delivery import Delivery, DeliveryState, Fate, Report
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import Hear, Recipient, RecipientState, e164, mailbox
from services.notifications.model.stray import KeepStray, Stray
from shared.contracts.intake import Channel
from shared.contracts.notifications import DeliveryKind, ReplyIntent
from shared.kit.api import Call, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.errors import Flaw, Invalid
from shared.kit.shown import instant, wait

READERS = frozenset({Role.COORDINATOR, Role.SCHEDULER, Role.OPERATOR, Role.AUDITOR})
PEOPLE_READERS = frozenset({Role.COORDINATOR})
GATEWAYS = frozenset({Role.SERVICE})


class Inbound(StrEnum):
    """The channels that bring replies."""

    SMS = "sms"
    VOICE = "voice"
    EMAIL = "email"


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class StatusReport(Body):
    """A gateway's status callback; ``reference`` is the delivery's id."""

    id: Annotated[str, Field(max_length=128)]
    reference: DocumentId
    status: Fate
    code: Code | None = None


class InboundReply(Body):
    """A reply that a gateway passes on."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    sender: Annotated[str, Field(alias="from", min_length=1, max_length=254)]
    to: Annotated[str, Field(max_length=254)] = ""
    body: Annotated[str, Field(max_length=4096)]
    received_at: datetime | None = None


class FoundOut(Body):
    """What became of a message whose answer was lost, as somebody found out."""

    outcome: Fate


def routes(policy: Policy) -> tuple[Routes, ...]:
    """Notifications' routes, by this policy."""
    return (_gateway_routes(policy), _reading_routes())


def _gateway_routes(policy: Policy) -> Routes:
    routes = Routes()

    @routes.post("/callbacks/status", roles=GATEWAYS)
    async def take_status(body: StatusReport, call: Call) -> Reply:
        """Take a gateway's word on what became of a message."""
        command = Report(fate=body.status, gateway_id=body.id, code=body.code)
        return await call.change(Delivery, body.reference, command, deliveries.report)

    @routes.post("/inbound/{channel}", roles=GATEWAYS, status=202)
    async def take_reply(channel: Inbound, body: InboundReply, call: Call) -> Reply:
        """Take a person's reply. The answer tells neither whose it is nor whether we know them."""
        intents_read = intents.read(body.body, Channel(channel))
        people = await _people(policy, call, channel, body.sender)
        if not people:
            kept = KeepStray(id=derived_id("stray", channel, body.id), channel=Channel(channel), intent=intents_read[0])
            await call.put(Stray, kept.id, kept, stray.keep, answer=_heard, status=202)
            return Reply(202, {"state": "heard"})
        whose, about = await _meant(call, people, Channel(channel))
        for person in people:
            if person.id != whose and ReplyIntent.STOP not in intents_read:
                continue
            command = Hear(
                message_id=body.id,
                channel=Channel(channel),
                text=body.body,
                intents=intents_read,
                appointment_id=about if person.id == whose else None,
                answer=person.id == whose,
            )
            await call.change(Recipient, person.id, command, recipient.hear, answer=_heard, status=202)
        return Reply(202, {"state": "heard"})

    return routes


def _heard(document: Recipient | Stray) -> dict[str, str]:
    return {"state": "heard"}


async def _people(policy: Policy, call: Call, channel: Inbound, sender: str) -> list[Recipient]:
    """Those who are reached at this number or mailbox; a family may share one."""
    address = mailbox(sender) if channel is Inbound.EMAIL else e164(sender)
    if address is None:
        return []
    field = {Inbound.SMS: "mobile_hash", Inbound.VOICE: "phone_hash", Inbound.EMAIL: "email_hash"}[channel]
    found = await call.find(Recipient, field, policy.hash_of(address))
    return [person for person in found if person.state is RecipientState.KNOWN]


async def _meant(call: Call, people: Sequence[Recipient], channel: Channel) -> tuple[str, str | None]:
    """Whose reply it is, and about which visit: that of the last message to any of them by this channel."""
    last: Delivery | None = None
    for person in people:
        for sent in await call.find(Delivery, "messaged", person.id, limit=1000):
            if sent.channel is not channel or sent.messaged_at is None:
                continue
            if last is None or last.messaged_at is None or sent.messaged_at > last.messaged_at:
                last = sent
    if last is None:
        return people[0].id, None
    return last.patient_id, None if last.kind is DeliveryKind.CANCELLATION else last.appointment_id


def _reading_routes() -> Routes:
    routes = Routes()

    @routes.get("/deliveries", roles=READERS)
    async def list_deliveries(
        call: Call,
        appointment: DocumentId | None = None,
        patient: DocumentId | None = None,
        state: DeliveryState | None = None,
        after: DocumentId | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Reply:
        """Deliveries of an appointment, a patient, in a state (``unknown`` is a worklist); all filters must hold."""
        wanted = {"appointment_id": appointment, "patient_id": patient, "state": None if state is None else state.value}
        conditions = {name: value for name, value in wanted.items() if value is not None}
        if not conditions:
            raise Invalid(flaws=[Flaw("appointment", "one of appointment, patient and state is needed")])
        found = await call.page(Delivery, conditions, limit=limit, after=after)
        following = found[-1].id if len(found) == limit else None
        return Reply(200, {"deliveries": [shown(delivery) for delivery in found], "after": following})

    @routes.get("/deliveries/{id}", roles=READERS)
    async def read_delivery(id: DocumentId, call: Call) -> Reply:
        """One delivery."""
        delivery = await call.read(Delivery, id)
        return call.show(delivery, shown(delivery))

    @routes.post("/deliveries/{id}/outcome", roles=PEOPLE_READERS)
    async def record_outcome(id: DocumentId, body: FoundOut, call: Call) -> Reply:
        """Say what became of a delivery whose answer was lost; refused for any other."""
        return await call.change(Delivery, id, Report(fate=body.outcome, code="found-out"), deliveries.find_out)

    @routes.get("/recipients/{id}", roles=PEOPLE_READERS)
    async def read_recipient(id: DocumentId, call: Call) -> Reply:
        """How a person may be reached, and what they replied; the reading is audited."""
        person = await call.read(Recipient, id)
        return call.show(person, shown_person(person))

    return routes


def shown(delivery: Delivery) -> dict[str, object]:
    """A delivery without personal data."""
    return {
        "id": delivery.id,
        "version": delivery.version,
        "state": delivery.state.value,
        "kind": delivery.kind.value,
        "appointment_id": delivery.appointment_id,
        "patient_id": delivery.patient_id,
        "occurrence": delivery.occurrence,
        "ahead_seconds": delivery.ahead_seconds,
        "planned_for": instant(delivery.planned_for),
        "useful_until": instant(delivery.useful_until),
        "next_look": instant(delivery.due),
        "channel": None if delivery.channel is None else delivery.channel.value,
        "language": None if delivery.language is None else delivery.language.value,
        "fallback": delivery.fallback,
        "reason": delivery.reason,
        "wait": wait(delivery),
    }


def shown_person(person: Recipient) -> dict[str, object]:
    """A recipient for a coordinator: whether and how they can be reached, and their replies; no numbers."""
    return {
        "id": person.id,
        "version": person.version,
        "state": person.state.value,
        "language": person.language,
        "timezone": person.timezone,
        "channels": [channel.value for channel in person.preference],
        "reachable_by": [c.value for c in person.preference if person.reachable_by(c) and c not in person.barred],
        "revoked": sorted(channel.value for channel in person.barred),
        "replies": [
            {
                "at": instant(said.at),
                "channel": said.channel.value,
                "intent": said.intent.value,
                "text": said.text,
                "appointment_id": said.appointment_id,
            }
            for said in person.said
        ],
    }

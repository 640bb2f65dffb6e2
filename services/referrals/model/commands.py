"""What people and systems at the edge ask of a referral: order, packet, specialist's answer, report, withdrawal."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from services.referrals.model.packet import PacketItem
from services.referrals.model.referral import (
    Authorization,
    OrderStatus,
    Referral,
    Report,
    begin,
    proceed,
    refresh_packet,
)
from services.referrals.model.stages import State
from shared.contracts.base import Coding
from shared.contracts.referrals import (
    AlternativeWanted,
    Priority,
    ReferralCancelled,
    ReferralClosed,
    ReferralEscalated,
    ReferralRejected,
    ReferralRequested,
)
from shared.kit.decisions import Due, Facts
from shared.kit.document import derived_id
from shared.kit.errors import Conflict, DomainError, Flaw, IllegalTransition, Invalid


class ReportElsewhere(DomainError):
    """The report says that it is based on another referral, or is about another patient."""

    slug = "report-not-based-on-this-referral"
    status = 409
    title = "A referral is closed only by a report that is based on it"


class PacketSealed(DomainError):
    """The packet was sent; what the specialist decided on may not change afterwards."""

    slug = "packet-sealed"
    status = 409
    title = "The packet has been sent and can no longer be changed"


class NotTheirs(DomainError):
    """A specialist answers for a referral that was sent to another."""

    slug = "sent-to-another-specialist"
    status = 409
    title = "The referral was sent to another specialist"


class Command(BaseModel):
    """Plain, frozen data of a request that was already checked for its form."""

    model_config = ConfigDict(frozen=True)


class RequestReferral(Command):
    """An order for a referral. ``id`` is derived from caller and key, or given by a FHIR client's PUT."""

    id: str
    patient_id: str
    specialty: str
    service: Coding
    priority: Priority
    requester_id: str
    authored_on: datetime
    performer_id: str | None = None
    diagnoses: tuple[Coding, ...] = ()
    quantity: int = 1
    packet: tuple[PacketItem, ...] = ()
    order_status: OrderStatus = OrderStatus.ACTIVE
    order_intent: str = "order"


class ActivateOrder(Command):
    """A draft, held or doubtful order is now in force."""


class AddToPacket(Command):
    """Documents for the packet."""

    items: tuple[PacketItem, ...]


class Accept(Command):
    """The specialist takes the referral. ``specialist_id``, where given, must be whom it was sent to."""

    specialist_id: str | None = None


class Reject(Command):
    """The specialist declines; ``reason`` is a code."""

    reason: str
    specialist_id: str | None = None


class FileReport(Command):
    """A consult report. ``based_on`` is the referral that it names; ``patient_id`` whom it is about, where it says."""

    report_id: str
    based_on: str
    patient_id: str | None = None
    issued_at: datetime | None = None
    code: Coding | None = None
    sha256: str | None = None


class Cancel(Command):
    """Withdraw the referral; ``reason`` is a code."""

    reason: str


class MarkEnteredInError(Command):
    """The referral should never have been."""


class Acknowledge(Command):
    """The patient was told what to expect, and said so, on that date."""

    acknowledged_on: datetime


class Progress(StrEnum):
    """What a specialist's Task can say that changes no state here, and is written down."""

    RECEIVED = "received"
    IN_PROGRESS = "in-progress"
    ON_HOLD = "on-hold"
    FAILED = "failed"


class NoteProgress(Command):
    """The specialist's side tells how it goes."""

    progress: Progress


# -- the order ----------------------------------------------------------------------------------------------------

_FIRST_STATE: dict[OrderStatus, State] = {
    OrderStatus.ACTIVE: State.AWAITING_PATIENT,
    OrderStatus.DRAFT: State.AWAITING_ORDER,
    OrderStatus.ON_HOLD: State.AWAITING_ORDER,
    OrderStatus.UNKNOWN: State.AWAITING_ORDER,
    # The order says that it was carried out; the loop closes only by the report that proves it.
    OrderStatus.COMPLETED: State.AWAITING_REPORT,
    OrderStatus.REVOKED: State.CANCELLED,
    OrderStatus.ENTERED_IN_ERROR: State.ENTERED_IN_ERROR,
}


def request(referral: Referral | None, command: RequestReferral, facts: Facts, now: datetime) -> Referral:
    """Take an order in, whatever its status: none is lost, each waits for what its status leaves open.

    Registration and coverage are read after this write, in the reaction to ReferralRequested. Raises Conflict where
    the id is taken.
    """
    if referral is not None:
        raise Conflict("A referral with this id exists")
    made = Referral(
        id=command.id,
        state=_FIRST_STATE[command.order_status],
        patient_id=command.patient_id,
        specialty=command.specialty,
        service=command.service,
        priority=command.priority,
        requester_id=command.requester_id,
        performer_id=command.performer_id,
        authored_on=command.authored_on,
        requested_at=now,
        diagnoses=command.diagnoses,
        quantity=command.quantity,
        order_status=command.order_status,
        order_intent=command.order_intent,
        packet=_merged((), command.packet),
        attended=command.order_status is OrderStatus.COMPLETED,
    )
    _record_request(made)
    begin(made, now)
    if made.ended:
        made.ending = f"order-{command.order_status.value}"
        _record_withdrawal(made, made.ending)
    return made


def _record_request(referral: Referral) -> None:
    referral.record(
        ReferralRequested(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            specialty=referral.specialty,
            service=referral.service,
            priority=referral.priority,
            requester_id=referral.requester_id,
            authored_on=referral.authored_on,
            replaces=referral.replaces,
            authorization_id=referral.authorization_id,
        )
    )


def take_order(referral: Referral | None, command: RequestReferral, facts: Facts, now: datetime) -> Referral:
    """FHIR update-as-create: a new order, or another status or more evidence for one that is known.

    Raises Conflict where the order is now about something else: a changed order is a new one (FHIR R4 ServiceRequest,
    'replaces').
    """
    if referral is None:
        return request(None, command, facts, now)
    flaws = [Flaw(f"ServiceRequest.{name}", "differs from the order on file") for name in _changed(referral, command)]
    if flaws:
        raise Conflict("The order on file is about something else", flaws=flaws)
    if command.order_status is OrderStatus.REVOKED:
        if referral.state is State.CANCELLED:
            return referral
        return cancel(referral, Cancel(reason="order-revoked"), facts, now)
    if command.order_status is OrderStatus.ENTERED_IN_ERROR:
        if referral.state is State.ENTERED_IN_ERROR:
            return referral
        return mark_entered_in_error(referral, MarkEnteredInError(), facts, now)
    if referral.ended:
        return referral
    if referral.order_status is not command.order_status:
        referral.order_status = command.order_status
        referral.note(now, "order-status", command.order_status)
    referral.attended = referral.attended or command.order_status is OrderStatus.COMPLETED
    if not referral.sealed:
        referral.packet = _merged(referral.packet, command.packet)
        refresh_packet(referral)
    return proceed(referral, now)


def _changed(referral: Referral, command: RequestReferral) -> tuple[str, ...]:
    pairs = (
        ("subject", referral.patient_id, command.patient_id),
        ("code", referral.service, command.service),
    )
    return tuple(name for name, held, given in pairs if held != given)


def activate(referral: Referral, command: ActivateOrder, facts: Facts, now: datetime) -> Referral:
    """A held order is in force from now on. Raises IllegalTransition where it is already under way."""
    if referral.state is not State.AWAITING_ORDER:
        raise IllegalTransition("Referral", referral.state, State.AWAITING_PATIENT)
    referral.order_status = OrderStatus.ACTIVE
    return proceed(referral, now)


def open_alternative(referral: Referral | None, event: AlternativeWanted, facts: Facts, now: datetime) -> Referral:
    """The referral in place of a rejected one, with its packet and an authorization that still holds."""
    if referral is not None:
        return referral
    made = Referral(
        id=event.alternative_id,
        patient_id=event.patient_id,
        specialty=event.specialty,
        service=event.service,
        priority=event.priority,
        requester_id=event.requester_id,
        authored_on=event.authored_on,
        requested_at=now,
        diagnoses=event.diagnoses,
        quantity=event.quantity,
        packet=tuple(PacketItem.carried(entry, now) for entry in event.packet),
        authorization=Authorization.from_carried(event.authorization) if event.authorization else None,
        tried=event.tried,
        replaces=event.referral_id,
    )
    _record_request(made)
    return begin(made, now)


# -- the packet ---------------------------------------------------------------------------------------------------


def add_to_packet(referral: Referral, command: AddToPacket, facts: Facts, now: datetime) -> Referral:
    """Add documents; the same document again adds nothing. Raises PacketSealed once it has been sent."""
    if referral.ended:
        raise IllegalTransition("Referral", referral.state, State.AWAITING_PACKET)
    if referral.sealed:
        raise PacketSealed
    referral.packet = _merged(referral.packet, command.items)
    for item in command.items:
        referral.note(now, "packet-item", item.kind)
    refresh_packet(referral)
    return proceed(referral, now)


def _merged(held: tuple[PacketItem, ...], more: tuple[PacketItem, ...]) -> tuple[PacketItem, ...]:
    """Both, each item once by kind and content."""
    kept = {(item.kind, item.sha256): item for item in (*more, *held)}
    return tuple(sorted(kept.values(), key=lambda item: (item.added_at, item.kind, item.sha256)))


# -- the specialist's answer --------------------------------------------------------------------------------------


def _check_answer(referral: Referral, specialist_id: str | None, wanted: State) -> None:
    """An answer is owed once the packet was sent, also while payment is unclear; it is given once."""
    owed = referral.state is State.AWAITING_ACCEPTANCE or (
        referral.state is State.AWAITING_COVERAGE and referral.sealed and referral.accepted_at is None
    )
    if not owed:
        raise IllegalTransition("Referral", referral.state, wanted)
    if specialist_id is not None and specialist_id != referral.specialist_id:
        raise NotTheirs


def accept(referral: Referral, command: Accept, facts: Facts, now: datetime) -> Referral:
    """The specialist takes it. Raises IllegalTransition where no answer is owed, NotTheirs for somebody else's."""
    _check_answer(referral, command.specialist_id, State.AWAITING_APPOINTMENT)
    referral.accepted_at = now
    referral.note(now, "accepted")
    return proceed(referral, now)


def reject(referral: Referral, command: Reject, facts: Facts, now: datetime) -> Referral:
    """The specialist declines: the referral ends, and a linked alternative begins."""
    _check_answer(referral, command.specialist_id, State.REJECTED)
    if referral.specialist_id is None:
        raise IllegalTransition("Referral", referral.state, State.REJECTED)
    alternative_id = derived_id("alternative", referral.id)
    carried = referral.authorization.carried(now.date()) if referral.authorization else None
    referral.alternative_id = alternative_id
    referral.end(State.REJECTED, now, command.reason)
    referral.record(
        ReferralRejected(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            specialist_id=referral.specialist_id,
            reason=command.reason,
            alternative_id=alternative_id,
            authorization_carried=carried is not None,
            authorization_id=referral.authorization_id,
        )
    )
    referral.record(
        AlternativeWanted(
            referral_id=referral.id,
            alternative_id=alternative_id,
            patient_id=referral.patient_id,
            specialty=referral.specialty,
            service=referral.service,
            priority=referral.priority,
            requester_id=referral.requester_id,
            authored_on=referral.authored_on,
            tried=(*referral.tried, referral.specialist_id),
            diagnoses=referral.diagnoses,
            quantity=referral.quantity,
            packet=tuple(item.entry() for item in referral.packet),
            authorization=carried,
        )
    )
    return referral


def note_progress(referral: Referral, command: NoteProgress, facts: Facts, now: datetime) -> Referral:
    """Write down what the specialist's side says of its work. A failed attempt leaves the report owed, and visible."""
    referral.note(now, "specialist-task", command.progress)
    return referral


# -- the end ------------------------------------------------------------------------------------------------------


def close(referral: Referral, command: FileReport, facts: Facts, now: datetime) -> Referral:
    """The report is here. It may come before the news of the visit: who reports has seen the patient.

    Raises ReportElsewhere where it is based on another referral or about another patient. The same report again
    changes nothing.
    """
    if command.based_on != referral.id:
        raise ReportElsewhere(flaws=[Flaw("basedOn", "names another referral")])
    if command.patient_id is not None and command.patient_id != referral.patient_id:
        raise ReportElsewhere(flaws=[Flaw("subject", "is not the patient of this referral")])
    if referral.report is not None and referral.report.id == command.report_id:
        return referral
    referral.end(State.CLOSED, now, "report")
    referral.attended = True
    referral.report = Report(
        id=command.report_id,
        received_at=now,
        issued_at=command.issued_at,
        code=command.code,
        sha256=command.sha256,
    )
    referral.record(
        ReferralClosed(referral_id=referral.id, patient_id=referral.patient_id, report_id=command.report_id)
    )
    return referral


def cancel(referral: Referral, command: Cancel, facts: Facts, now: datetime) -> Referral:
    """Withdraw it; authorization and appointment follow. Raises IllegalTransition after the end."""
    referral.end(State.CANCELLED, now, command.reason)
    _record_withdrawal(referral, command.reason)
    return referral


def mark_entered_in_error(referral: Referral, command: MarkEnteredInError, facts: Facts, now: datetime) -> Referral:
    """It should never have been; to everybody else that is a withdrawal."""
    referral.end(State.ENTERED_IN_ERROR, now, "entered-in-error")
    _record_withdrawal(referral, "entered-in-error")
    return referral


def _record_withdrawal(referral: Referral, reason: str) -> None:
    referral.record(
        ReferralCancelled(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            reason=reason,
            authorization_id=referral.authorization_id,
        )
    )


def acknowledge(referral: Referral, command: Acknowledge, facts: Facts, now: datetime) -> Referral:
    """The patient knows what to expect. Raises Invalid for a date ahead."""
    if command.acknowledged_on > now:
        raise Invalid(flaws=[Flaw("acknowledged_on", "lies ahead")])
    referral.acknowledged_on = command.acknowledged_on
    referral.note(now, "patient-acknowledged")
    return referral


# -- time ---------------------------------------------------------------------------------------------------------


def escalate(referral: Referral, due: Due, facts: Facts, now: datetime) -> Referral:
    """A deadline passed: told once for this wait, which goes on."""
    wait = referral.overdue(now)
    if wait is None:
        return referral
    referral.note(now, "escalated", wait.reason)
    referral.record(
        ReferralEscalated(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            state=referral.state,
            since=wait.since,
            deadline=wait.deadline,
            owner=wait.owner,
        )
    )
    return referral

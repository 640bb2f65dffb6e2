"""Scheduling's HTTP door: calendars and slots, appointments, and IHE's scheduling operations in FHIR."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Header, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from services.scheduling import fhir
from services.scheduling.model import appointment as visit
from services.scheduling.model import calendar as days
from services.scheduling.model.appointment import ACTIVE, Appointment, AppointmentState
from services.scheduling.model.approval import Approval, BeyondApproval
from services.scheduling.model.calendar import Calendar, NewSlot, Slot, SlotStatus
from services.scheduling.model.person import Person
from services.scheduling.model.talk import Talk
from shared.contracts.base import Coding
from shared.contracts.referrals import Priority
from shared.contracts.scheduling import CancelledBy
from shared.kit import shown
from shared.kit.api import IDEMPOTENCY_KEY, Call, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.clock import to_milliseconds
from shared.kit.commands import request_key
from shared.kit.decisions import NO_FACTS, Decision, Facts
from shared.kit.document import Document
from shared.kit.errors import Conflict, Flaw, Invalid, NotFound

DESK = frozenset({Role.SCHEDULER, Role.COORDINATOR})
CARE_TEAM = DESK | {Role.CLINICIAN}
READERS = CARE_TEAM | {Role.AUDITOR, Role.OPERATOR}
PLANNERS = frozenset({Role.SCHEDULER})

LONGEST_LOOK = timedelta(days=93)
MOST_SLOTS_AT_ONCE = 5000
DAYS_A_MONTH = 31
FHIR_JSON = {"content-type": "application/fhir+json"}


class AlreadyWanted(Conflict):
    """The referral has an appointment that is not over."""

    slug = "appointment-exists"
    title = "The referral has an appointment already; move or cancel that one"


def _utc(at: datetime) -> datetime:
    return to_milliseconds(at.astimezone(UTC))


Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
"""A point in time with its offset, taken to UTC and milliseconds; one without an offset is refused."""

Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
"""A reason as a code, never as text, which might speak of a person."""

Key = Annotated[str, Header(alias=IDEMPOTENCY_KEY)]


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OfferedSlot(Body):
    """A slot to publish: free, or closed from the start."""

    start: Instant
    end: Instant
    status: SlotStatus = SlotStatus.FREE


class Publication(Body):
    """Slots of one resource, of any number of days. ``timezone`` is an IANA name."""

    timezone: str
    slots: Annotated[list[OfferedSlot], Field(min_length=1, max_length=MOST_SLOTS_AT_ONCE)]


class Hold(Body):
    """Keep a slot, or take it at once; ``minutes`` is how long a hold is to last."""

    slot_id: DocumentId
    patient_id: DocumentId
    referral_id: DocumentId | None = None
    minutes: Annotated[int, Field(ge=1, le=60)] = 10
    beyond_approval: Code | None = None


class ServiceCode(Body):
    """What the visit is for, as a code."""

    system: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    code: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class NewAppointment(Body):
    """A visit that is wanted: the earliest in the window, or ``slot_id``; ``flexible`` takes another for a lost one."""

    patient_id: DocumentId
    resource_id: DocumentId
    referral_id: DocumentId | None = None
    priority: Priority = Priority.ROUTINE
    earliest: Instant | None = None
    latest: Instant | None = None
    service: ServiceCode | None = None
    slot_id: DocumentId | None = None
    flexible: bool = False
    beyond_approval: Code | None = None


class Move(Body):
    """The slot to move to."""

    slot_id: DocumentId
    beyond_approval: Code | None = None


class Cancellation(Body):
    """Who calls it off, and why."""

    by: CancelledBy = CancelledBy.COORDINATOR
    reason: Code = "unspecified"


class SlotSearch(BaseModel):
    """GET /slots: a resource's slots that start in a window; ``status=any`` shows all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resource: DocumentId
    since: Annotated[Instant | None, Field(alias="from")] = None
    until: Annotated[Instant | None, Field(alias="to")] = None
    status: SlotStatus | None = None
    any: bool = False


class AppointmentSearch(BaseModel):
    """GET /appointments: of one referral, of one patient, or waiting for a slot of one resource."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    referral: DocumentId | None = None
    patient: DocumentId | None = None
    waiting_for: DocumentId | None = None


# -- shown ------------------------------------------------------------------------------------------------------------


def _local(at: datetime, zone: str) -> str:
    """The time as a clock on the wall there shows it, with its offset."""
    return at.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes")


def shown_slot(calendar: Calendar, slot: Slot) -> dict[str, Any]:
    """A slot as the API shows it."""
    return {
        "slot_id": slot.slot_id,
        "calendar_id": calendar.id,
        "resource_id": calendar.resource_id,
        "start": shown.instant(slot.start),
        "end": shown.instant(slot.end),
        "timezone": calendar.timezone,
        "local_start": _local(slot.start, calendar.timezone),
        "status": slot.status.value,
        "held_until": None if slot.held_until is None else shown.instant(slot.held_until),
    }


def shown_approval(document: Appointment, approval: Approval | None) -> dict[str, Any] | None:
    """What was approved for an appointment's referral, what was withheld, and how a date that it has lies beyond it."""
    if approval is None or not approval.grants:
        return None
    grant, slot = approval.standing(), document.place
    dated = slot is not None and document.state in ACTIVE | {AppointmentState.PENDING}
    about = {} if grant is None else grant.model_dump(mode="json", exclude={"stands", "replaces"})
    beyond = approval.beyond(slot.start, slot.timezone) if slot is not None and dated else None
    return {**about, "beyond": beyond, "booked_because": document.beyond_approval}


def shown_appointment(
    document: Appointment, person: Person | None = None, approval: Approval | None = None
) -> dict[str, Any]:
    """An appointment as the API shows it; ``ready`` says whether all that the visit needs is promised."""
    slot = document.place
    return {
        "id": document.id,
        "version": document.version,
        "state": document.state.value,
        "patient_id": document.patient_id,
        "referral_id": document.referral_id,
        "resource_id": document.resource_id,
        "priority": document.priority.value,
        "earliest": shown.instant(document.earliest),
        "latest": shown.instant(document.latest),
        "slot_id": slot and slot.slot_id,
        "start": slot and shown.instant(slot.start),
        "end": slot and shown.instant(slot.end),
        "timezone": slot and slot.timezone,
        "local_start": slot and _local(slot.start, slot.timezone),
        "occurrence": document.occurrence,
        "held_until": shown.instant(document.held_until),
        "confirmed_at": shown.instant(document.confirmed_at),
        "arrived_at": shown.instant(document.arrived_at),
        "asked_slot_id": document.asked and document.asked.slot_id,
        "refused": document.refused
        and {
            "slot_id": document.refused.slot_id,
            "reason": document.refused.reason,
            "at": shown.instant(document.refused.at),
        },
        "ended_by": document.ended_by,
        "end_reason": document.end_reason,
        "wait": shown.wait(document),
        "ready": person is None or not person.missing(),
        "approval": shown_approval(document, approval),
        "needs": {} if person is None else {barrier: need.value for barrier, need in sorted(person.needs.items())},
    }


def _given(calendar: Calendar, appointment_id: str, state: AppointmentState) -> dict[str, Any]:
    """What holding, booking and confirming answer: the appointment as the calendar has just decided on it."""
    slot = calendar.held_by(appointment_id)
    assert slot is not None  # noqa: S101 - the calendar has just given it
    return {
        "id": appointment_id,
        "state": state.value,
        "slot_id": slot.slot_id,
        "resource_id": calendar.resource_id,
        "start": shown.instant(slot.start),
        "end": shown.instant(slot.end),
        "timezone": calendar.timezone,
        "held_until": None if slot.held_until is None else shown.instant(slot.held_until),
    }


# -- found ------------------------------------------------------------------------------------------------------------


async def _calendar_of(call: Call, slot_id: str) -> Calendar:
    found = await call.find(Calendar, "slot_ids", slot_id, limit=1)
    if not found:
        raise NotFound("There is no such slot")
    return found[0]


async def _slots(call: Call, resource_id: str, since: datetime, until: datetime) -> list[tuple[Calendar, Slot]]:
    """A resource's slots that start in the window, in order. Raises Invalid for a window that is empty or too long."""
    if until < since:
        raise Invalid("The window holds no time", flaws=[Flaw("to", "is before from")])
    if until - since > LONGEST_LOOK:
        raise Invalid("The window is too long", flaws=[Flaw("to", f"is more than {LONGEST_LOOK.days} days after from")])
    found: list[tuple[Calendar, Slot]] = []
    for month in visit.months(since, until):
        calendars = await call.find(Calendar, "in_month", days.month_of(resource_id, month), limit=DAYS_A_MONTH)
        found += [(each, slot) for each in calendars for slot in each.slots if since <= slot.start <= until]
    return sorted(found, key=lambda each: each[1].start)


def _offered(calendar: Calendar, slot: Slot, now: datetime) -> bool:
    """Whether a slot can be had now; one whose hold has lapsed can, even before the timer frees it."""
    lapsed = slot.held_until is not None and slot.held_until <= now
    return slot.free_at(now) or (lapsed and slot.start > now)


async def _next_free(call: Call, resource_id: str, count: int) -> list[Slot]:
    open_days = await call.find(Calendar, "open_for", resource_id, limit=visit.MOST_OPEN)
    now = call.now
    free = sorted((slot for day in open_days for slot in day.slots if slot.free_at(now)), key=lambda slot: slot.start)
    return free[:count]


async def _needs_of(call: Call, patient_id: str) -> Person | None:
    found = await call.find(Person, "patient_id", patient_id, limit=1)
    return found[0] if found else None


def _asked_before(documents: Iterable[Document], call: Call, key: str) -> str | None:
    """The document that this very request led to before, if any."""
    remembered = request_key(call.caller.subject, key)
    return next((document.id for document in documents if remembered in document.requests), None)


async def _id_for(call: Call, referral_id: str | None, key: str) -> str:
    """The id of the appointment that a request creates: for a referral the next number in turn, so that of two
    requests at once only one creates. Raises AlreadyWanted while the referral has one that is not over.
    """
    if referral_id is None:
        return call.new_id("appointment")
    known = await call.find(Appointment, "referral_id", referral_id)
    if (before := _asked_before(known, call, key)) is not None:
        return before
    _refuse_second(known)
    ids = {each.id for each in known}
    return next(id for number in range(1, len(ids) + 2) if (id := visit.appointment_id(referral_id, number)) not in ids)


def _refuse_second(known: Iterable[Appointment]) -> None:
    if any(not each.ended for each in known):
        raise AlreadyWanted


def _propose(
    document: Appointment | None, command: visit.ProposeAppointment, facts: Facts, now: datetime
) -> Appointment:
    """Create; where somebody else was first under the same number, theirs stands."""
    if document is not None:
        raise AlreadyWanted
    return visit.propose(None, command, facts, now)


async def _approvals(call: Call, referral_ids: Iterable[str | None]) -> dict[str, Approval]:
    """What was approved for these referrals, by their ids."""
    ids = sorted({id for id in referral_ids if id is not None})
    found = await call.page(Approval, {"referral_id": {"$in": ids}}, limit=len(ids)) if ids else []
    return {each.referral_id: each for each in found}


async def _refuse_beyond(
    call: Call,
    key: str,
    referral_id: str | None,
    calendar: Calendar,
    slot_id: str,
    reason: str | None,
    but: str | None = None,
) -> None:
    """Raise BeyondApproval for a slot that the payer would not pay a visit in, unless there is a ``reason`` for it.

    Counted are the referral's other visits that have a date, ``but`` the one that is to be moved. A request that was
    answered before is not asked about again.
    """
    slot = calendar.slot(slot_id)
    if referral_id is None or slot is None or reason is not None:
        return
    approval = (await _approvals(call, [referral_id])).get(referral_id)
    if approval is None:
        return
    known = await call.find(Appointment, "referral_id", referral_id)
    if _asked_before(known, call, key) is not None:
        return
    others = [each for each in known if each.id != but and each.place is not None and not each.ended]
    if (how := approval.beyond(slot.start, calendar.timezone, len(others))) is not None:
        raise BeyondApproval(how)


# -- publishing -------------------------------------------------------------------------------------------------------


def _zone(name: str) -> str:
    """An IANA zone that this system knows. Raises Invalid for any other."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid("The zone is not known", flaws=[Flaw("timezone", "is not an IANA time zone")]) from None
    return name


async def _publish(call: Call, resource_id: str, zone: str, slots: Sequence[NewSlot], key: str) -> Reply:
    """Publish to each day's calendar. All are tried on what is stored before the first is written, so that a refusal
    names everything and changes nothing; only a publication at the same moment can leave a part.
    """
    commands = _by_day(resource_id, _zone(zone), slots)
    stored = {each.id: each for month in _months_of(commands) for each in await _month(call, resource_id, month)}
    flaws: list[Flaw] = []
    for command in commands:
        known = stored.get(command.calendar_id)
        if known is not None and _asked_before([known], call, key) is not None:
            continue
        try:
            days.publish(known and known.copy_deep(), command, NO_FACTS, call.now)
        except Invalid as refusal:
            flaws.extend(refusal.flaws)
    if flaws:
        raise Invalid("The slots cannot be published", flaws=flaws)
    for command in commands:
        await call.put(Calendar, command.calendar_id, command, days.publish)
    calendars = [{"id": command.calendar_id, "day": command.day, "slots": len(command.slots)} for command in commands]
    return Reply(201, {"resource_id": resource_id, "calendars": calendars})


def _by_day(resource_id: str, zone: str, slots: Sequence[NewSlot]) -> list[days.PublishSlots]:
    by_day: dict[str, list[NewSlot]] = {}
    for slot in slots:
        by_day.setdefault(days.day_of(slot.start), []).append(slot)
    return [
        days.PublishSlots(days.calendar_id(resource_id, day), resource_id, day, zone, tuple(of_day))
        for day, of_day in sorted(by_day.items())
    ]


def _months_of(commands: Iterable[days.PublishSlots]) -> list[str]:
    return sorted({command.day[:7] for command in commands})


async def _month(call: Call, resource_id: str, month: str) -> list[Calendar]:
    return await call.find(Calendar, "in_month", days.month_of(resource_id, month), limit=DAYS_A_MONTH)


def _new_slot(place: int, slot: OfferedSlot) -> NewSlot:
    if slot.status not in (SlotStatus.FREE, SlotStatus.UNAVAILABLE):
        flaw = Flaw(f"slots[{place}].status", "must be free or busy-unavailable; the others come from bookings")
        raise Invalid("The slots cannot be published", flaws=[flaw])
    return NewSlot(f"slots[{place}]", slot.start, slot.end, slot.status)


def _calendars() -> Routes:
    routes = Routes("/calendars", tags=("calendars",))

    @routes.post("/{resource_id}/slots", roles=PLANNERS, status=201)
    async def publish(resource_id: DocumentId, body: Publication, call: Call, key: Key) -> Reply:
        slots = [_new_slot(place, slot) for place, slot in enumerate(body.slots)]
        return await _publish(call, resource_id, body.timezone, slots, key)

    @routes.post("/{resource_id}/fhir-slots", roles=PLANNERS, status=201)
    async def publish_fhir(
        resource_id: DocumentId, timezone: str, body: dict[str, object], call: Call, key: Key
    ) -> Reply:
        return await _publish(call, resource_id, timezone, fhir.new_slots(body), key)

    @routes.get("/{resource_id}/third-next-available", roles=READERS)
    async def third_next_available(resource_id: DocumentId, call: Call) -> Reply:
        free = await _next_free(call, resource_id, 3)
        third = free[2] if len(free) == 3 else None
        return Reply(
            200,
            {
                "resource_id": resource_id,
                "as_of": shown.instant(call.now),
                "next": [shown.instant(slot.start) for slot in free],
                "third_next_available": third and shown.instant(third.start),
                "days": third and round((third.start - call.now) / timedelta(days=1), 2),
            },
        )

    return routes


def _slot_routes() -> Routes:
    routes = Routes("/slots", tags=("slots",))

    @routes.get("", roles=READERS)
    async def find(search: Annotated[SlotSearch, Query()], call: Call) -> Reply:
        since = search.since or call.now
        until = search.until or since + timedelta(days=30)
        found = await _slots(call, search.resource, since, until)
        wanted = search.status or SlotStatus.FREE
        kept = [
            (each, slot)
            for each, slot in found
            if search.any or (_offered(each, slot, call.now) if wanted is SlotStatus.FREE else slot.status is wanted)
        ]
        return Reply(200, {"slots": [shown_slot(each, slot) for each, slot in kept]})

    @routes.get("/{slot_id}", roles=READERS)
    async def read(slot_id: DocumentId, call: Call) -> Reply:
        calendar = await _calendar_of(call, slot_id)
        slot = calendar.slot(slot_id)
        assert slot is not None  # noqa: S101 - the calendar was found by it
        return call.show(calendar, shown_slot(calendar, slot))

    @routes.post("/hold", roles=DESK, status=201)
    async def hold(body: Hold, call: Call) -> Reply:
        return await _take(call, body, days.hold, AppointmentState.PENDING)

    @routes.post("/book", roles=DESK, status=201)
    async def book(body: Hold, call: Call) -> Reply:
        return await _take(call, body, days.book, AppointmentState.BOOKED)

    @routes.post("/{slot_id}/block", roles=PLANNERS)
    async def block(slot_id: DocumentId, call: Call) -> Reply:
        calendar = await _calendar_of(call, slot_id)
        return await call.change(Calendar, calendar.id, days.BlockSlot(slot_id), days.block)

    @routes.post("/{slot_id}/unblock", roles=PLANNERS)
    async def unblock(slot_id: DocumentId, call: Call) -> Reply:
        calendar = await _calendar_of(call, slot_id)
        return await call.change(Calendar, calendar.id, days.UnblockSlot(slot_id), days.unblock)

    return routes


async def _take(call: Call, body: Hold, decide: Decision, state: AppointmentState) -> Reply:
    """Ask the slot's calendar, which decides at once; the appointment follows from what it says."""
    calendar = await _calendar_of(call, body.slot_id)
    id = call.new_id("appointment")
    if body.referral_id is not None and id not in calendar.holders:
        _refuse_second(each for each in await call.find(Appointment, "referral_id", body.referral_id) if each.id != id)
        await _refuse_beyond(call, "", body.referral_id, calendar, body.slot_id, body.beyond_approval)
    command = days.HoldSlot(
        body.slot_id, id, body.patient_id, body.referral_id, timedelta(minutes=body.minutes), body.beyond_approval
    )
    return await call.change(
        Calendar, calendar.id, command, decide, answer=lambda day: _given(day, id, state), status=201
    )


async def _confirm(call: Call, appointment_id: str) -> Reply:
    """Have the calendar that holds a slot for this appointment make it its own, whether or not the appointment is
    stored yet. Raises HoldExpired, or NotFound for an appointment never heard of.
    """
    calendars = await call.find(Calendar, "holders", appointment_id, limit=1)
    if not calendars:
        known = await call.read(Appointment, appointment_id)
        raise days.HoldExpired(f"The appointment is {known.state.value} and holds no slot")
    return await call.change(
        Calendar,
        calendars[0].id,
        days.ConfirmHold(appointment_id),
        days.confirm,
        answer=lambda day: _given(day, appointment_id, AppointmentState.BOOKED),
    )


# -- appointments -----------------------------------------------------------------------------------------------------


def _appointments() -> Routes:
    routes = Routes("/appointments", tags=("appointments",))

    @routes.post("", roles=DESK, status=201)
    async def propose(body: NewAppointment, call: Call, key: Key) -> Reply:
        id = await _id_for(call, body.referral_id, key)
        calendar = None if body.slot_id is None else await _calendar_of(call, body.slot_id)
        if calendar is not None and body.slot_id is not None:
            await _refuse_beyond(call, key, body.referral_id, calendar, body.slot_id, body.beyond_approval)
        command = visit.ProposeAppointment(
            appointment_id=id,
            patient_id=body.patient_id,
            resource_id=body.resource_id,
            earliest=body.earliest or call.now,
            latest=body.latest,
            referral_id=body.referral_id,
            priority=body.priority,
            service=None if body.service is None else Coding(system=body.service.system, code=body.service.code),
            calendar_id=None if calendar is None else calendar.id,
            slot_id=body.slot_id,
            flexible=body.flexible,
            beyond_approval=body.beyond_approval,
        )
        return await call.put(Appointment, id, command, _propose, wants=visit.calendar_wanted, status=201)

    @routes.get("", roles=READERS)
    async def search(search: Annotated[AppointmentSearch, Query()], call: Call) -> Reply:
        given = {
            "referral_id": search.referral,
            "patient_id": search.patient,
            "waiting_for": search.waiting_for,
        }
        conditions = {name: value for name, value in given.items() if value is not None}
        if not conditions:
            raise Invalid("Nothing is asked for", flaws=[Flaw("referral", "or patient or waiting_for is needed")])
        found = await call.page(Appointment, conditions, limit=500)
        by_time = sorted(found, key=lambda each: (each.created_at, each.id))
        approvals = await _approvals(call, (each.referral_id for each in by_time))
        lines = [shown_appointment(each, None, approvals.get(each.referral_id or "")) for each in by_time]
        return Reply(200, {"appointments": lines})

    @routes.get("/{appointment_id}", roles=READERS)
    async def read(appointment_id: DocumentId, call: Call) -> Reply:
        document = await call.read(Appointment, appointment_id)
        approvals = await _approvals(call, [document.referral_id])
        needs = await _needs_of(call, document.patient_id)
        return call.show(document, shown_appointment(document, needs, approvals.get(document.referral_id or "")))

    @routes.post("/{appointment_id}/book", roles=DESK)
    async def book(appointment_id: DocumentId, call: Call) -> Reply:
        return await _confirm(call, appointment_id)

    @routes.post("/{appointment_id}/reschedule", roles=DESK, status=202)
    async def reschedule(appointment_id: DocumentId, body: Move, call: Call, key: Key) -> Reply:
        calendar = await _calendar_of(call, body.slot_id)
        known = await call.read(Appointment, appointment_id)
        await _refuse_beyond(call, key, known.referral_id, calendar, body.slot_id, body.beyond_approval, known.id)
        command = visit.MoveAppointment(calendar.id, body.slot_id, body.beyond_approval)
        return await call.change(
            Appointment, appointment_id, command, visit.move_to, wants=visit.calendar_wanted, status=202
        )

    @routes.post("/{appointment_id}/cancel", roles=DESK)
    async def cancel(appointment_id: DocumentId, body: Cancellation, call: Call) -> Reply:
        command = visit.CancelAppointment(body.by, body.reason)
        return await call.change(Appointment, appointment_id, command, visit.cancel)

    @routes.post("/{appointment_id}/confirm", roles=CARE_TEAM)
    async def confirm(appointment_id: DocumentId, call: Call) -> Reply:
        return await call.change(Appointment, appointment_id, visit.ConfirmAttendance(), visit.attendance_confirmed)

    @routes.post("/{appointment_id}/arrive", roles=CARE_TEAM)
    async def arrive(appointment_id: DocumentId, call: Call) -> Reply:
        return await call.change(Appointment, appointment_id, visit.RecordArrival(), visit.arrive)

    @routes.post("/{appointment_id}/fulfil", roles=CARE_TEAM)
    async def fulfil(appointment_id: DocumentId, call: Call) -> Reply:
        return await call.change(Appointment, appointment_id, visit.RecordFulfilment(), visit.fulfil)

    @routes.post("/{appointment_id}/no-show", roles=CARE_TEAM)
    async def no_show(appointment_id: DocumentId, call: Call) -> Reply:
        return await call.change(Appointment, appointment_id, visit.RecordNoShow(), visit.no_show)

    @routes.post("/{appointment_id}/enter-in-error", roles=DESK)
    async def enter_in_error(appointment_id: DocumentId, call: Call) -> Reply:
        return await call.change(Appointment, appointment_id, visit.EnterInError(), visit.enter_in_error)

    return routes


# -- talks -------------------------------------------------------------------------------------------------------------


def shown_talk(document: Talk) -> dict[str, Any]:
    """A clinician's talk with a payer's physician as the API shows it."""
    slot = document.place
    return {
        "id": document.id,
        "version": document.version,
        "state": document.state.value,
        "authorization_id": document.authorization_id,
        "patient_id": document.patient_id,
        "resource_id": document.resource_id,
        "offers": [{"start": shown.instant(each.start), "end": shown.instant(each.end)} for each in document.windows],
        "slot_id": slot and slot.slot_id,
        "start": slot and shown.instant(slot.start),
        "end": slot and shown.instant(slot.end),
        "local_start": slot and _local(slot.start, slot.timezone),
    }


def _talks() -> Routes:
    routes = Routes("/talks", tags=("talks",))

    @routes.get("", roles=READERS)
    async def of_resource(resource: DocumentId, call: Call) -> Reply:
        found = await call.find(Talk, "resource_id", resource, limit=500)
        by_time = sorted(found, key=lambda each: (each.place is None, each.place and each.place.start, each.id))
        return Reply(200, {"talks": [shown_talk(each) for each in by_time]})

    @routes.get("/{talk_id}", roles=READERS)
    async def read(talk_id: DocumentId, call: Call) -> Reply:
        document = await call.read(Talk, talk_id)
        return call.show(document, shown_talk(document))

    return routes


# -- FHIR -------------------------------------------------------------------------------------------------------------


def _fhir_routes() -> Routes:
    routes = Routes("/fhir", tags=("fhir",))

    @routes.get("/Appointment/{appointment_id}", roles=READERS)
    async def read(appointment_id: DocumentId, call: Call) -> Reply:
        document = await call.read(Appointment, appointment_id)
        approval = (await _approvals(call, [document.referral_id])).get(document.referral_id or "")
        return Reply(200, fhir.appointment(document, approval), FHIR_JSON | {"ETag": f'"{document.version}"'})

    @routes.get("/Slot", roles=READERS)
    async def slots(search: Annotated[SlotSearch, Query()], call: Call) -> Reply:
        since = search.since or call.now
        found = await _slots(call, search.resource, since, search.until or since + timedelta(days=30))
        kept = [fhir.slot(each, slot) for each, slot in found if search.status in (None, slot.status)]
        return Reply(200, fhir.searchset(kept, len(kept)), FHIR_JSON)

    @routes.post("/Appointment/$find", roles=READERS)
    async def find(body: dict[str, object], call: Call) -> Reply:
        asked = fhir.find_parameters(body)
        found = [
            fhir.potential(each, slot)
            for each, slot in await _slots(call, asked.resource_id, asked.start, asked.end)
            if _offered(each, slot, call.now)
        ]
        shown = found if asked.count is None else found[: asked.count]
        return Reply(200, fhir.searchset(shown, len(found), fhir.IHE_BUNDLE), FHIR_JSON)

    @routes.post("/Appointment/$hold", roles=DESK)
    async def hold(body: dict[str, object], call: Call) -> Reply:
        return await _operation(call, body, days.hold, AppointmentState.PENDING)

    @routes.post("/Appointment/$book", roles=DESK)
    async def book(body: dict[str, object], call: Call) -> Reply:
        return await _operation(call, body, days.book, AppointmentState.BOOKED)

    return routes


async def _operation(call: Call, body: Mapping[str, object], decide: Decision, state: AppointmentState) -> Reply:
    """$hold and $book (IHE ITI-116, ITI-117). A reference to a potential appointment names a slot, and needs a
    patient; $book also takes a held appointment. What cannot be had is an OperationOutcome, fatal and not-found.
    """
    asked = fhir.slot_parameters(body)
    if asked.patient_id is None and state is not AppointmentState.BOOKED:
        raise fhir.missing("patient")
    try:
        if asked.patient_id is None:
            reply = await _confirm(call, asked.reference_id)
        else:
            wanted = Hold(slot_id=asked.reference_id, patient_id=asked.patient_id, referral_id=asked.referral_id)
            reply = await _take(call, wanted, decide, state)
    except BeyondApproval as refusal:
        return Reply(refusal.status, fhir.not_approved(refusal.detail), FHIR_JSON)
    except (days.SlotLost, days.HoldExpired, AlreadyWanted, NotFound) as refusal:
        return Reply(refusal.status, fhir.lost(refusal.detail), FHIR_JSON)
    return Reply(200, fhir.given(json.loads(bytes(reply.body)), asked.patient_id), FHIR_JSON)


def routes() -> tuple[Routes, ...]:
    """All routes of scheduling."""
    return (_calendars(), _slot_routes(), _appointments(), _talks(), _fhir_routes())

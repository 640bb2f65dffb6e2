"""Whatever the order of messages, repeats, commands and time: no two visits of a resource overlap, and nobody who waits
is forgotten.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.scheduling.model import appointment as visit
from services.scheduling.model import calendar as days
from services.scheduling.model.appointment import ACTIVE, LOOKING, Appointment, AppointmentState
from services.scheduling.model.calendar import Calendar, ConfirmHold, HoldSlot, NewSlot, PublishSlots, SlotStatus
from services.scheduling.reactions import REACTIONS
from shared.contracts.referrals import Priority, ReferralCancelled
from shared.contracts.scheduling import CancelledBy
from shared.kit.decisions import Decision
from shared.kit.document import derived_id
from shared.kit.errors import DomainError
from tests.unit.scheduling.world import DOCTOR, OTHER_DOCTOR, START, World, accepted, patient, referral

NINE = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)
DOCTORS = st.sampled_from([DOCTOR, OTHER_DOCTOR])
NUMBERS = st.integers(1, 6)
PLACES = st.integers(0, 3)
ANY = st.integers(0, 1000)


class Scheduling(RuleBasedStateMachine):
    """Two doctors with a few slots on two days, six referrals, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.holds = 0

    @initialize(slots=st.integers(1, 4), wanted=st.integers(2, 5), settled=st.booleans())
    def begin(self, slots: int, wanted: int, settled: bool) -> None:
        """More visits are wanted than there are slots, or nearly, so that there is something to fight for."""
        self.world.publish(*(NINE + n * timedelta(minutes=30) for n in range(slots)))
        for number in range(1, wanted + 1):
            self.world.hear(accepted(number))
        if settled:
            self.world.settle()

    # -- what people do -------------------------------------------------------------------------------------------

    @rule(doctor=DOCTORS, day=st.integers(0, 1), place=PLACES, minutes=st.sampled_from([30, 45, 60]))
    def publish(self, doctor: str, day: int, place: int, minutes: int) -> None:
        start = NINE + timedelta(days=day, minutes=30 * place)
        id = days.calendar_id(doctor, days.day_of(start))
        slot = NewSlot("slots[0]", start, start + timedelta(minutes=minutes))
        command = PublishSlots(id, doctor, days.day_of(start), "America/Denver", (slot,))
        with suppress(DomainError):
            self.world.do(Calendar, id, command, days.publish)

    @rule(number=NUMBERS, doctor=DOCTORS, priority=st.sampled_from(list(Priority)), bounded=st.booleans())
    def accept(self, number: int, doctor: str, priority: Priority, bounded: bool) -> None:
        latest = NINE + timedelta(hours=12) if bounded else None
        self.world.hear(accepted(number, doctor=doctor, priority=priority, latest=latest))

    @rule(number=NUMBERS)
    def cancel_referral(self, number: int) -> None:
        self.world.hear(ReferralCancelled(referral_id=referral(number), patient_id=patient(number), reason="withdrawn"))

    @rule(pick=ANY, number=NUMBERS, at_once=st.booleans())
    def hold(self, pick: int, number: int, at_once: bool) -> None:
        found = self._slot(pick)
        if found is None:
            return
        self.holds += 1
        calendar, slot_id = found
        command = HoldSlot(slot_id, derived_id("held", str(self.holds)), patient(number), referral(number))
        with suppress(DomainError):
            self.world.do(Calendar, calendar.id, command, days.book if at_once else days.hold)

    @precondition(lambda self: self.holds)
    @rule(pick=ANY)
    def confirm(self, pick: int) -> None:
        id = derived_id("held", str(pick % self.holds + 1))
        for calendar in self.world.where(Calendar, "holders", id):
            with suppress(DomainError):
                self.world.do(Calendar, calendar.id, ConfirmHold(id), days.confirm)

    @rule(pick=ANY, where=ANY)
    def move(self, pick: int, where: int) -> None:
        found = self._slot(where)
        if found is not None:
            calendar, slot_id = found
            self._act(pick, visit.MoveAppointment(calendar.id, slot_id), visit.move_to)

    @rule(pick=ANY)
    def cancel(self, pick: int) -> None:
        self._act(pick, visit.CancelAppointment(CancelledBy.PATIENT, "unspecified"), visit.cancel)

    @rule(pick=ANY)
    def arrive(self, pick: int) -> None:
        self._act(pick, visit.RecordArrival(), visit.arrive)

    @rule(pick=ANY)
    def miss(self, pick: int) -> None:
        self._act(pick, visit.RecordNoShow(), visit.no_show)

    # -- what wires and clocks do ---------------------------------------------------------------------------------

    @precondition(lambda self: self.world.undelivered())
    @rule(pick=ANY, count=st.integers(1, 12))
    def deliver(self, pick: int, count: int) -> None:
        for _ in range(count):
            if waiting := self.world.undelivered():
                self.world.deliver(*waiting[pick % len(waiting)])

    @rule()
    def deliver_all(self) -> None:
        self.world.settle()

    @precondition(lambda self: self.world.log)
    @rule(pick=ANY, table=st.sampled_from(REACTIONS))
    def deliver_again_from_the_start(self, pick: int, table: Any) -> None:
        ids = sorted(self.world.log)
        self.world.rewind(table, ids[pick % len(ids)])

    @rule(minutes=st.sampled_from([1, 11, 90, 60 * 24]))
    def time_passes_unnoticed(self, minutes: int) -> None:
        self.world.now = min(self.world.now + timedelta(minutes=minutes), START + timedelta(days=10))

    @rule(pick=ANY)
    def fire_a_timer(self, pick: int) -> None:
        due = [each for each in self.world.due() if each[0] <= self.world.now]
        if due:
            _, kind, id, name = due[pick % len(due)]
            self.world.fire(kind, id, name)

    # -- what holds at every moment -------------------------------------------------------------------------------

    @invariant()
    def no_two_active_visits_of_a_resource_overlap(self) -> None:
        taken = sorted(
            (each.place.resource_id, each.place.start, each.place.end)
            for each in self.world.appointments(*ACTIVE)
            if each.place is not None
        )
        for (resource, _, end), (next_resource, start, _) in pairwise(taken):
            assert resource != next_resource or end <= start

    @invariant()
    def no_two_slots_of_a_resource_overlap(self) -> None:
        for calendar in self._calendars():
            for slot, following in pairwise(calendar.slots):
                assert slot.end <= following.start

    @invariant()
    def what_a_visit_has_its_calendar_holds_for_it(self) -> None:
        for each in self.world.appointments(*ACTIVE):
            assert each.place is not None
            calendar = self.world.get(Calendar, each.place.calendar_id)
            assert isinstance(calendar, Calendar)
            slot = calendar.slot(each.place.slot_id)
            assert slot is not None
            assert (slot.holder, slot.status) == (each.id, SlotStatus.BUSY)

    # -- what holds when all is quiet -----------------------------------------------------------------------------

    def teardown(self) -> None:
        self.world.pass_time(self.world.now + timedelta(minutes=2))
        self.no_two_active_visits_of_a_resource_overlap()
        self.what_a_visit_has_its_calendar_holds_for_it()
        self._no_slot_is_held_for_nobody()
        self._nobody_who_waits_is_forgotten()

    def _no_slot_is_held_for_nobody(self) -> None:
        for calendar in self._calendars():
            for slot in calendar.slots:
                if slot.holder is None:
                    assert slot.status is SlotStatus.FREE
                    continue
                holder = self.world.appointment(slot.holder)
                assert holder.state not in (AppointmentState.CANCELLED, *LOOKING)
                assert holder.place is not None
                assert holder.place.slot_id == slot.slot_id

    def _nobody_who_waits_is_forgotten(self) -> None:
        for each in self.world.appointments(*LOOKING):
            assert each.asked is None
            assert each.wait is not None
            fitting = [
                slot
                for calendar in self._calendars()
                if calendar.resource_id == each.resource_id
                for slot in calendar.slots
                if slot.free_at(self.world.now)
                and slot.start >= each.earliest
                and (each.latest is None or slot.start <= each.latest)
            ]
            assert fitting == []

    # -- picking --------------------------------------------------------------------------------------------------

    def _calendars(self) -> list[Calendar]:
        return [document for document in self.world.documents.values() if isinstance(document, Calendar)]

    def _slot(self, pick: int) -> tuple[Calendar, str] | None:
        all_slots = [(calendar, slot.slot_id) for calendar in self._calendars() for slot in calendar.slots]
        return all_slots[pick % len(all_slots)] if all_slots else None

    def _act(self, pick: int, command: object, decide: Decision) -> None:
        found = [each for each in self.world.appointments() if not each.ended]
        if not found:
            return
        wants = visit.calendar_wanted if isinstance(command, visit.MoveAppointment) else None
        with suppress(DomainError):
            self.world.do(Appointment, found[pick % len(found)].id, command, decide, wants)  # type: ignore[arg-type]


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)

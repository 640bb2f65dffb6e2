"""A small world for scheduling's tables: documents, what they published, and a clock; deliveries as a test likes them.

It applies the real reaction and job tables with the kit's promises: a document's events come in order, a change and
its events are one write, facts are read when they are decided on, and what was applied before is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from services.scheduling.jobs import jobs
from services.scheduling.model import appointment as visit
from services.scheduling.model import calendar as days
from services.scheduling.model.appointment import Appointment, AppointmentState
from services.scheduling.model.calendar import Calendar, NewSlot, PublishSlots
from services.scheduling.reactions import REACTIONS
from shared.contracts.base import Coding, Event
from shared.contracts.referrals import Priority, ReferralAccepted
from shared.kit.decisions import NO_FACTS, Decision, Due, Facts, Ref, Want, Wants
from shared.kit.document import Document, derived_id
from shared.kit.jobs import Timer
from shared.kit.reactions import Field, Reactions

START = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
"""A Monday morning."""

DOCTOR = derived_id("test", "doctor")
OTHER_DOCTOR = derived_id("test", "other doctor")


def patient(number: int = 1) -> str:
    """A synthetic patient's id."""
    return derived_id("test", "patient", str(number))


def referral(number: int = 1) -> str:
    """A referral's id."""
    return derived_id("test", "referral", str(number))


def accepted(
    number: int = 1,
    *,
    priority: Priority = Priority.ROUTINE,
    earliest: datetime = START,
    latest: datetime | None = None,
    doctor: str = DOCTOR,
) -> ReferralAccepted:
    """A specialist took a referral."""
    return ReferralAccepted(
        referral_id=referral(number),
        patient_id=patient(number),
        specialist_id=doctor,
        priority=priority,
        service=Coding(system="http://snomed.info/sct", code="185389009"),
        earliest=earliest,
        latest=latest,
    )


class World:
    """Scheduling alone."""

    def __init__(self, tables: Iterable[Reactions] = REACTIONS) -> None:
        self.now = START
        self.documents: dict[tuple[type[Document], str], Document] = {}
        self.log: dict[str, list[Event]] = {}
        self.published: list[Event] = []
        self.places: dict[tuple[type[Document], str], int] = {}
        self.tables = tuple(tables)
        self.timers = {(table.document, row.name): row for table in jobs() for row in table.rows.values()}

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, type: type[Document], id: str) -> Document | None:
        return self.documents.get((type, id))

    def calendar(self, start: datetime, doctor: str = DOCTOR) -> Calendar:
        found = self.documents[Calendar, days.calendar_id(doctor, days.day_of(start))]
        assert isinstance(found, Calendar)
        return found

    def visit(self, number: int = 1) -> Appointment:
        return self.appointment(visit.appointment_id(referral(number)))

    def appointment(self, id: str) -> Appointment:
        found = self.documents[Appointment, id]
        assert isinstance(found, Appointment)
        return found

    def appointments(self, *states: AppointmentState) -> list[Appointment]:
        return [
            document
            for document in self.documents.values()
            if isinstance(document, Appointment) and (not states or document.state in states)
        ]

    def events(self, type: type[Event]) -> list[Any]:
        """All published events of a type, in the order in which they were recorded."""
        return [event for event in self.published if isinstance(event, type)]

    def facts(self, wants: Iterable[Want]) -> Facts:
        loaded: dict[Want, list[Any]] = {}
        for want in wants:
            if isinstance(want, Ref):
                found = self.get(want.document, want.id)
                loaded[want] = [] if found is None else [found.copy_deep()]
            else:
                loaded[want] = [fact.copy_deep() for fact in self.where(want.document, want.field, want.value)]
        return Facts(loaded)

    def where(self, type: type[Document], field: str, value: str) -> list[Document]:
        assert field in type.indexes
        found = [document for (kind, _), document in self.documents.items() if kind is type]
        holding = [
            document
            for document in found
            if (held := getattr(document, field)) == value or (isinstance(held, list) and value in held)
        ]
        return sorted(holding, key=lambda document: document.id)

    # -- deciding -----------------------------------------------------------------------------------------------

    def do(
        self,
        type: type[Document],
        id: str,
        command: object,
        decide: Decision,
        wants: Wants | None = None,
        applied: tuple[str, int] | None = None,
    ) -> None:
        """One decision and its write, all or nothing; ``applied`` is the upstream document and sequence it takes in."""
        stored = self.get(type, id)
        document = None if stored is None else stored.copy_deep()
        facts = NO_FACTS if wants is None else self.facts(wants(command, document))
        decided = decide(document, command, facts, self.now)
        if decided is None:
            return
        assert decided.id == id
        if applied is not None:
            decided.applied[applied[0]] = applied[1]
        self.documents[type, id] = decided
        recorded = list(decided.recorded())
        decided.recorded().clear()
        decided.sequence += len(recorded)
        self.log.setdefault(id, []).extend(recorded)
        self.published.extend(recorded)

    def publish(self, *starts: datetime, minutes: int = 30, doctor: str = DOCTOR, zone: str = "America/Denver") -> None:
        """Publish a free slot at each start."""
        for day in sorted({days.day_of(start) for start in starts}):
            id = days.calendar_id(doctor, day)
            slots = tuple(
                NewSlot(f"slots[{place}]", start, start + timedelta(minutes=minutes))
                for place, start in enumerate(starts)
                if days.day_of(start) == day
            )
            self.do(Calendar, id, PublishSlots(id, doctor, day, zone, slots), days.publish)

    def hear(self, event: Event) -> None:
        """An event of another service comes in."""
        for table in self.tables:
            self._react(table, event, None)

    def _react(self, table: Reactions, event: Event, applied: tuple[str, int] | None) -> None:
        row = table.rows.get(event.type)
        if row is None:
            return
        if isinstance(row.route, Field):
            value = row.route.value(event)
            ids = [d.id for d in self.where(table.document, row.route.name, value)] if value is not None else []
        else:
            ids = list(row.route(event))
        for id in ids:
            document = self.get(table.document, id)
            if document is not None and applied is not None and document.applied.get(applied[0], 0) >= applied[1]:
                continue
            decide = row.decision_for(document)
            if decide is not None:
                self.do(table.document, id, event, decide, row.wants, applied)
            elif document is not None and applied is not None:
                document.applied[applied[0]] = applied[1]

    # -- events and time ----------------------------------------------------------------------------------------

    def undelivered(self) -> list[tuple[Reactions, str]]:
        """The (table, document) pairs for which an event waits to be delivered."""
        return [
            (table, id)
            for table in self.tables
            for id, events in self.log.items()
            if self.places.get((table.document, id), 0) < len(events)
        ]

    def deliver(self, table: Reactions, id: str) -> None:
        """The next event of a document to one table, in the document's order."""
        place = self.places.get((table.document, id), 0)
        self.places[table.document, id] = place + 1
        self._react(table, self.log[id][place], (id, place + 1))

    def rewind(self, table: Reactions, id: str) -> None:
        """As after a crash before the commit, or a replay of the topic: a document's events come from the start."""
        self.places[table.document, id] = 0

    def settle(self) -> None:
        """Deliver everything, oldest document first, until nothing is left."""
        while waiting := self.undelivered():
            self.deliver(*waiting[0])

    def due(self) -> list[tuple[datetime, type[Document], str, str]]:
        """All timers, earliest first."""
        timers = [
            (at, kind, id, name)
            for (kind, id), document in self.documents.items()
            for name, at in document.timers.items()
        ]
        return sorted(timers, key=lambda timer: (timer[0], timer[2], timer[3]))

    def fire(self, type: type[Document], id: str, name: str) -> None:
        """A timer that is due is taken off and decided on."""
        job = self.timers[type, name]
        assert isinstance(job, Timer)
        document = self.documents[type, id]
        at = document.timers.pop(name)
        self.do(type, id, Due(name, at), job.decide, job.wants)

    def pass_time(self, until: datetime) -> None:
        """Let time go by, firing each timer at its time and delivering what it leads to."""
        self.settle()
        while (due := self.due()) and due[0][0] <= until:
            at, kind, id, name = due[0]
            self.now = max(self.now, at)
            self.fire(kind, id, name)
            self.settle()
        self.now = max(self.now, until)

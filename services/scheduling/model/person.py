"""What a patient needs to be there for a visit to take place, and whether somebody promised it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from shared.contracts.directory import HandOffAccepted, HandOffClosed, HandOffOutcome
from shared.contracts.intake import Barrier, BarrierRecorded
from shared.kit.decisions import Facts
from shared.kit.document import Document

FOR_A_VISIT = frozenset({Barrier.INTERPRETER, Barrier.TRANSPORTATION})
"""The barriers without whose help a visit fails; help with prescriptions comes after it."""


class PersonState(StrEnum):
    """Whether everything that the patient needs for a visit is promised."""

    READY = "ready"
    NOT_READY = "not-ready"


class Need(StrEnum):
    """How far the help with one barrier is."""

    OPEN = "open"
    PROMISED = "promised"
    DECLINED = "declined"


class Person(Document):
    """A patient, as far as a visit depends on them; its id is ``patient_id``."""

    collection: ClassVar[str] = "person"
    indexes: ClassVar[tuple[str, ...]] = ("patient_id",)
    transitions: ClassVar[dict[PersonState, frozenset[PersonState]]] = {
        PersonState.READY: frozenset({PersonState.NOT_READY}),
        PersonState.NOT_READY: frozenset({PersonState.READY}),
    }

    patient_id: str
    state: PersonState = PersonState.READY
    needs: dict[str, Need] = {}

    def missing(self) -> tuple[str, ...]:
        """The barriers that nobody has promised to help with."""
        return tuple(sorted(barrier for barrier, need in self.needs.items() if need is Need.OPEN))


def need_recorded(person: Person | None, event: BarrierRecorded, _: Facts, __: datetime) -> Person | None:
    """The patient needs help; a promise that came first stands."""
    if event.barrier not in FOR_A_VISIT:
        return person
    person = person or Person(id=event.patient_id, patient_id=event.patient_id)
    person.needs.setdefault(event.barrier.value, Need.OPEN)
    return _settle(person)


def help_promised(person: Person | None, event: HandOffAccepted, _: Facts, __: datetime) -> Person | None:
    """A service will help."""
    return _set(person, event.patient_id, event.barrier, Need.PROMISED)


def help_ended(person: Person | None, event: HandOffClosed, _: Facts, __: datetime) -> Person | None:
    """The hand-off is over: given, not wanted, or still owed."""
    need = {HandOffOutcome.HELPED: Need.PROMISED, HandOffOutcome.DECLINED_BY_PATIENT: Need.DECLINED}
    return _set(person, event.patient_id, event.barrier, need.get(event.outcome, Need.OPEN))


def _set(person: Person | None, patient_id: str, barrier: Barrier, need: Need) -> Person | None:
    if barrier not in FOR_A_VISIT:
        return person
    person = person or Person(id=patient_id, patient_id=patient_id)
    person.needs[barrier.value] = need
    return _settle(person)


def _settle(person: Person) -> Person:
    state = PersonState.NOT_READY if person.missing() else PersonState.READY
    if person.state is not state:
        person.move(state)
    return person

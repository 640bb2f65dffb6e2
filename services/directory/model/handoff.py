"""The hand-off of one need of one patient to a community service, followed to its end; and where the patient lives.

A hand-off is looked for by need and place, offered to the best service that has not declined it, and waits for an
answer, for help to be given, or for a coordinator. Each wait has a deadline that escalates once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from services.directory.model.listing import CommunityService, supply_key
from services.directory.model.needs import language
from services.directory.model.places import home_of, nearness
from shared.contracts.directory import (
    HandOffAccepted,
    HandOffClosed,
    HandOffEscalated,
    HandOffOffered,
    HandOffOpened,
    HandOffOutcome,
    HandOffSought,
    HandOffUnmatched,
    NeedServed,
    PersonLocated,
    ServiceListed,
    ServiceStatus,
)
from shared.contracts.intake import Barrier, BarrierRecorded, PersonChanged
from shared.kit.decisions import Due, Facts, Ref, Want, Where
from shared.kit.document import Document, Part, derived_id
from shared.kit.errors import Conflict, Flaw, IllegalTransition, Invalid

LOCATE_WITHIN = timedelta(days=1)
"""How long intake may take to tell where the patient lives."""

SEARCH_WITHIN = timedelta(hours=1)
"""How long the search may take; it takes seconds where nothing is wrong."""

ANSWER_WITHIN = timedelta(days=3)
"""How long an asked service has to answer."""

MATCH_WITHIN = timedelta(days=2)
"""How long a coordinator has to find help where no listed service fits."""

HELP_WITHIN = timedelta(days=14)
"""How long a service that accepted has until somebody must say how it ended."""

CANDIDATES = 200
"""How many services of one place are compared; more than any place has for one need."""


class Home(StrEnum):
    """Whether a person is known."""

    KNOWN = "known"
    FORGOTTEN = "forgotten"


class Person(Document):
    """Where a patient lives and what they speak: all that directory keeps of a person (id: the patient's)."""

    collection: ClassVar[str] = "person"
    State: ClassVar[type[Home]] = Home
    transitions: ClassVar[dict[Home, frozenset[Home]]] = {
        Home.KNOWN: frozenset({Home.FORGOTTEN}),
        Home.FORGOTTEN: frozenset(),
    }
    terminal: ClassVar[frozenset[Home]] = frozenset({Home.FORGOTTEN})

    state: Home = Home.KNOWN
    postal_code: str | None = None
    city: str | None = None
    region: str | None = None
    language: str = "en"


def keep_person(document: Person | None, event: PersonChanged, facts: Facts, now: datetime) -> Person:
    """Keep where a person lives, announcing each change; or forget them for good."""
    new = document is None
    person = document or Person(id=event.patient_id)
    if event.erased:
        person.postal_code = person.city = person.region = None
        person.language = "en"
        person.move(Home.FORGOTTEN)
        person.record(PersonLocated(patient_id=person.id, erased=True))
        return person
    address = event.address
    before = (person.postal_code, person.city, person.region, person.language)
    person.postal_code = address.postal_code if address else None
    person.city = address.city if address else None
    person.region = address.state if address else None
    person.language = language(event.language)
    if new or before != (person.postal_code, person.city, person.region, person.language):
        person.record(PersonLocated(patient_id=person.id))
    return person


class Step(StrEnum):
    """Where a hand-off stands."""

    OPENED = "opened"
    SEARCHING = "searching"
    OFFERED = "offered"
    UNMATCHED = "unmatched"
    ACCEPTED = "accepted"
    CLOSED = "closed"


class Declined(StrEnum):
    """Why a service does not help."""

    NO_CAPACITY = "no-capacity"
    NOT_ELIGIBLE = "not-eligible"
    OUT_OF_AREA = "out-of-area"
    OTHER = "other"


class Decline(Part):
    """A service that was asked and does not help."""

    service_id: str
    reason: Declined
    at: datetime


class HandOff(Document):
    """One need of one patient on its way to a community service."""

    collection: ClassVar[str] = "handoff"
    State: ClassVar[type[Step]] = Step
    indexes: ClassVar[tuple[str, ...]] = ("patient_id", "state", "barrier", "watching", "offered_to")
    transitions: ClassVar[dict[Step, frozenset[Step]]] = {
        Step.OPENED: frozenset({Step.SEARCHING, Step.OFFERED, Step.CLOSED}),
        Step.SEARCHING: frozenset({Step.OFFERED, Step.UNMATCHED, Step.CLOSED}),
        Step.OFFERED: frozenset({Step.ACCEPTED, Step.SEARCHING, Step.OFFERED, Step.CLOSED}),
        Step.UNMATCHED: frozenset({Step.OFFERED, Step.SEARCHING, Step.CLOSED}),
        Step.ACCEPTED: frozenset({Step.SEARCHING, Step.CLOSED}),
        Step.CLOSED: frozenset(),
    }
    terminal: ClassVar[frozenset[Step]] = frozenset({Step.CLOSED})

    state: Step = Step.OPENED
    patient_id: str
    barrier: Barrier
    language: str = "en"
    home: tuple[str, ...] = ()
    """The keys of the places the patient lives in, nearest first (see ``places``); empty until they are known."""
    watching: Barrier | None = None
    """The need, while a service that meets it would be welcome."""
    offered_to: str | None = None
    declines: tuple[Decline, ...] = ()
    outcome: HandOffOutcome | None = None


OPEN = frozenset(Step) - {Step.CLOSED}


@dataclass(frozen=True, slots=True)
class OpenHandOff:
    """A coordinator opens a hand-off for a need that came up again after an earlier one ended."""

    id: str
    patient_id: str
    barrier: Barrier
    language: str


@dataclass(frozen=True, slots=True)
class OfferTo:
    """A coordinator picks the service to ask."""

    service_id: str


@dataclass(frozen=True, slots=True)
class AcceptOffer:
    """The service will help. ``service_id`` says whose answer it is, so that a late one cannot answer for another."""

    service_id: str


@dataclass(frozen=True, slots=True)
class DeclineOffer:
    """The service will not help."""

    service_id: str
    reason: Declined


@dataclass(frozen=True, slots=True)
class CloseHandOff:
    """It is over."""

    outcome: HandOffOutcome


# -- opening and locating --------------------------------------------------------------------------------------


def handoff_id(patient_id: str, barrier: Barrier) -> str:
    """The id of the hand-off that a recorded barrier opens."""
    return derived_id("handoff", patient_id, barrier)


def open_for_barrier(document: HandOff | None, event: BarrierRecorded, facts: Facts, now: datetime) -> HandOff:
    """A recorded barrier opens its hand-off; recorded again, it is the same hand-off."""
    if document is not None:
        return document
    return _open(handoff_id(event.patient_id, event.barrier), event.patient_id, event.barrier, event.language, now)


def open_again(document: HandOff | None, command: OpenHandOff, facts: Facts, now: datetime) -> HandOff:
    """A coordinator opens a hand-off. Raises Conflict while another for the same need of the patient is open."""
    for other in facts.where(HandOff, "patient_id", command.patient_id):
        if other.barrier == command.barrier and not other.ended:
            raise Conflict("A hand-off for this need of this patient is open")
    return _open(command.id, command.patient_id, command.barrier, command.language, now)


def others_of_patient(command: OpenHandOff, document: HandOff | None) -> Iterable[Want]:
    """The patient's other hand-offs."""
    return (Where(HandOff, "patient_id", command.patient_id),)


def _open(id: str, patient_id: str, barrier: Barrier, spoken: str, now: datetime) -> HandOff:
    document = HandOff(id=id, patient_id=patient_id, barrier=barrier, language=language(spoken))
    document.record(HandOffOpened(handoff_id=id, patient_id=patient_id, barrier=barrier))
    document.expect("coordinator", "person-unknown", now, LOCATE_WITHIN)
    return document


def person_of(message: object, document: HandOff | None) -> Iterable[Want]:
    """Where the hand-off's patient lives."""
    return () if document is None else (Ref(Person, document.patient_id),)


def locate(document: HandOff, event: HandOffOpened | PersonLocated, facts: Facts, now: datetime) -> HandOff:
    """Take over where the patient lives and what they speak; a hand-off without an offer then looks for a service.

    Nothing happens while the person is unknown: their arrival is announced by PersonLocated. An erased person's
    hand-off is cancelled.
    """
    person = facts.get(Person, document.patient_id)
    if person is None:
        return document
    if person.ended:
        return _close(document, HandOffOutcome.CANCELLED)
    home = home_of(person.postal_code, person.city, person.region)
    changed = (home, person.language) != (document.home, document.language)
    document.home, document.language = home, person.language
    if document.state is Step.OPENED or (document.state is Step.UNMATCHED and changed):
        return _search(document, now)
    if document.state is Step.SEARCHING and changed:
        document.record(HandOffSought(handoff_id=document.id))
    return document


# -- looking for a service -------------------------------------------------------------------------------------


def _search(document: HandOff, now: datetime) -> HandOff:
    """Look for a service. What is found is read in the reaction to HandOffSought, after this was written."""
    document.move(Step.SEARCHING)
    document.offered_to = None
    document.watching = document.barrier
    document.expect("operator", "search", now, SEARCH_WITHIN)
    document.record(HandOffSought(handoff_id=document.id))
    return document


def suppliers(message: object, document: HandOff | None) -> Iterable[Want]:
    """The active services that meet the need in one of the places the patient lives in."""
    if document is None:
        return ()
    return tuple(
        Where(CommunityService, "supply", supply_key(document.barrier, place), CANDIDATES) for place in document.home
    )


def ranked(document: HandOff, services: Iterable[CommunityService]) -> list[CommunityService]:
    """The services to ask, the best first: near before far, then those that speak the patient's language, then
    those whose record is verified; nationwide and virtual ones come last.

    An interpreter is of no use in another language: there, language goes before place, and a service known not to
    speak it is left out. A service that declined is not asked again.
    """
    declined = {decline.service_id for decline in document.declines}
    interpreting = document.barrier is Barrier.INTERPRETER
    candidates: dict[str, tuple[tuple[int | bool, ...], CommunityService]] = {}
    for service in services:
        shared = [place for place in service.reach if place in document.home]
        if service.id in declined or service.state is not ServiceStatus.ACTIVE or not shared:
            continue
        if document.barrier not in service.needs:
            continue
        foreign = document.language not in service.languages
        if interpreting and foreign and service.languages:
            continue
        near = min(nearness(place) for place in shared)
        order = (foreign, near, service.stale) if interpreting else (near, foreign, service.stale)
        candidates[service.id] = (order, service)
    return [candidates[id][1] for id in sorted(candidates, key=lambda one: (candidates[one][0], one))]


def match(document: HandOff, event: HandOffSought | NeedServed, facts: Facts, now: datetime) -> HandOff:
    """Offer to the best service, or wait for a coordinator, or for a service to be listed."""
    wanted = suppliers(event, document)
    found = [service for want in wanted if isinstance(want, Where) for service in _found(facts, want)]
    best = ranked(document, found)
    if best:
        return _offer(document, best[0].id, now)
    if document.state is Step.UNMATCHED:
        return document
    document.move(Step.UNMATCHED)
    document.expect("coordinator", "no-service-found", now, MATCH_WITHIN)
    document.record(HandOffUnmatched(handoff_id=document.id, patient_id=document.patient_id, barrier=document.barrier))
    return document


def _found(facts: Facts, want: Where) -> list[CommunityService]:
    return facts.where(CommunityService, want.field, want.value, want.limit)


# -- the offer -------------------------------------------------------------------------------------------------


def _offer(document: HandOff, service_id: str, now: datetime) -> HandOff:
    document.move(Step.OFFERED)
    document.offered_to = service_id
    document.watching = None
    document.expect("coordinator", "offer-unanswered", now, ANSWER_WITHIN)
    document.record(
        HandOffOffered(
            handoff_id=document.id, patient_id=document.patient_id, barrier=document.barrier, service_id=service_id
        )
    )
    return document


def asked_service(message: HandOffOffered | ServiceListed | OfferTo, document: HandOff | None) -> Iterable[Want]:
    """The service that is asked, or was listed anew."""
    return (Ref(CommunityService, message.service_id),)


def offer_to(document: HandOff, command: OfferTo, facts: Facts, now: datetime) -> HandOff:
    """A coordinator picks the service, whatever was found or declined.

    Raises Invalid for a service that is not listed, Conflict for one that is not active or is asked already.
    """
    service = facts.get(CommunityService, command.service_id)
    if service is None:
        raise Invalid(flaws=[Flaw("service_id", "is not a listed service")])
    if service.state is not ServiceStatus.ACTIVE:
        raise Conflict("The service is not active")
    if document.offered_to == command.service_id and document.state is Step.OFFERED:
        raise Conflict("The service is asked already")
    return _offer(document, command.service_id, now)


def confirm_offer(document: HandOff, event: HandOffOffered | ServiceListed, facts: Facts, now: datetime) -> HandOff:
    """Look at the asked service again, now that the offer is written, or the service has changed: one that ceased is
    not waited for.
    """
    service = facts.get(CommunityService, event.service_id)
    if document.offered_to != event.service_id or (service is not None and service.state is ServiceStatus.ACTIVE):
        return document
    return _search(document, now)


def accept(document: HandOff, command: AcceptOffer, facts: Facts, now: datetime) -> HandOff:
    """The asked service will help. Raises Conflict where another is asked."""
    _answering(document, command.service_id, Step.ACCEPTED)
    document.move(Step.ACCEPTED)
    document.expect("coordinator", "outcome-unknown", now, HELP_WITHIN)
    document.record(
        HandOffAccepted(
            handoff_id=document.id,
            patient_id=document.patient_id,
            barrier=document.barrier,
            service_id=command.service_id,
        )
    )
    return document


def decline(document: HandOff, command: DeclineOffer, facts: Facts, now: datetime) -> HandOff:
    """The service will not help, or cannot after all: the next one is looked for.

    Raises Conflict where another service is asked.
    """
    _answering(document, command.service_id, Step.SEARCHING)
    document.declines = (*document.declines, Decline(service_id=command.service_id, reason=command.reason, at=now))
    return _search(document, now)


def _answering(document: HandOff, service_id: str, wanted: Step) -> None:
    if document.state not in (Step.OFFERED, Step.ACCEPTED):
        raise IllegalTransition(type(document).__name__, document.state, wanted)
    if document.offered_to != service_id:
        raise Conflict("Another service is asked")


# -- the end ---------------------------------------------------------------------------------------------------


def close(document: HandOff, command: CloseHandOff, facts: Facts, now: datetime) -> HandOff:
    """It is over. ``helped`` needs a service that accepted, ``no-service`` a search without result.

    Raises IllegalTransition where it is over already, Conflict where the outcome does not fit.
    """
    if document.state is Step.CLOSED:
        raise IllegalTransition(type(document).__name__, document.state, Step.CLOSED)
    if command.outcome is HandOffOutcome.HELPED and document.state is not Step.ACCEPTED:
        raise Conflict("No service has accepted")
    if command.outcome is HandOffOutcome.NO_SERVICE and document.state is not Step.UNMATCHED:
        raise Conflict("Services are still looked for, or one is asked")
    return _close(document, command.outcome)


def _close(document: HandOff, outcome: HandOffOutcome) -> HandOff:
    service_id = document.offered_to
    document.move(Step.CLOSED)
    document.met()
    document.outcome = outcome
    document.offered_to = document.watching = None
    document.home = ()
    document.declines = ()
    document.record(
        HandOffClosed(
            handoff_id=document.id,
            patient_id=document.patient_id,
            barrier=document.barrier,
            outcome=outcome,
            service_id=service_id,
        )
    )
    return document


def overdue(document: HandOff, due: Due, facts: Facts, now: datetime) -> HandOff:
    """A wait outlived its deadline: said once, to the role that owes the next step."""
    wait = document.overdue(now)
    if wait is None:
        return document
    document.record(
        HandOffEscalated(
            handoff_id=document.id,
            patient_id=document.patient_id,
            barrier=document.barrier,
            state=document.state,
            since=wait.since,
            deadline=wait.deadline,
            owner=wait.owner,
        )
    )
    return document

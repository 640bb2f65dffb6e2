"""Synthetic referrals for the tests: stories told through the reaction table, with facts as the kit would load them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from services.referrals import model
from services.referrals.model import Person, Referral, Specialist, State
from services.referrals.model.person import Cover, Registration
from services.referrals.reactions import REFERRALS
from shared.contracts.base import Coding, Event
from shared.contracts.intake import CoverageStatus
from shared.contracts.prior_authorization import (
    AuthorizationAppealed,
    AuthorizationApproved,
    AuthorizationCancelled,
    AuthorizationDenied,
    AuthorizationNotRequired,
    AuthorizationPended,
    AuthorizationSubmitted,
    ReviewAction,
)
from shared.contracts.referrals import PersonKnown, Priority, SpecialistListed
from shared.contracts.scheduling import (
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
    CancelledBy,
)
from shared.kit.decisions import NO_FACTS, Facts, Ref, Want
from shared.kit.document import Document, derived_id

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
SNOMED = "http://snomed.info/sct"


def uid(*parts: str) -> str:
    """A UUID for a thing of these tests."""
    return derived_id("test", *parts)


REFERRAL, PATIENT, COVERAGE, PAYER = uid("referral"), uid("patient"), uid("coverage"), uid("payer")
AUTHORIZATION, APPOINTMENT, REPORT = uid("authorization"), uid("appointment"), uid("report")
FIRST, SECOND = sorted((uid("specialist", "a"), uid("specialist", "b")))


def item(kind: model.PacketKind, content: str = "content") -> model.PacketItem:
    """A document for the packet."""
    return model.PacketItem(
        kind=kind, sha256=model.content_hash(kind, content), source=model.PacketSource.DOCUMENT, added_at=NOW
    )


def order(**changes: object) -> model.RequestReferral:
    """An order for a dermatologist whose packet is complete, unless changed."""
    fields: dict[str, object] = {
        "id": REFERRAL,
        "patient_id": PATIENT,
        "specialty": "dermatology",
        "service": Coding(system=SNOMED, code="308472003"),
        "priority": Priority.ROUTINE,
        "requester_id": uid("clinician"),
        "authored_on": NOW,
        "packet": (
            item(model.PacketKind.REASON),
            item(model.PacketKind.MEDICATIONS),
            item(model.PacketKind.PHOTO),
        ),
    }
    return model.RequestReferral.model_validate(fields | changes)


def requested(now: datetime = NOW, **changes: object) -> Referral:
    """A new referral."""
    return model.request(None, order(**changes), NO_FACTS, now)


def known(
    state: Registration = Registration.COMPLETE,
    status: CoverageStatus = CoverageStatus.ACTIVE,
    *,
    missing: tuple[str, ...] = (),
    coverage_id: str = COVERAGE,
) -> Person:
    """The patient as intake told of them."""
    cover = Cover(status=status, coverage_id=coverage_id, payer_id=PAYER)
    return Person(id=PATIENT, state=state, missing=missing, cover=cover)


def specialist(id: str = FIRST, specialty: str = "dermatology", *, active: bool = True) -> Specialist:
    """One entry of the registry."""
    command = model.ListSpecialist(id=id, specialty=specialty, active=active)
    return model.list_specialist(None, command, NO_FACTS, NOW)


def loaded(wants: Iterable[Want], stored: Iterable[Document]) -> Facts:
    """Facts as the kit would load them from what is stored."""
    documents = tuple(stored)
    found: dict[Want, list[Document]] = {}
    for want in wants:
        of_type = [document for document in documents if isinstance(document, want.document)]
        if isinstance(want, Ref):
            found[want] = [document for document in of_type if document.id == want.id]
        else:
            fitting = [document for document in of_type if getattr(document, want.field) == want.value]
            found[want] = sorted(fitting, key=lambda document: document.id)[: want.limit]
    return Facts(found)


def react(referral: Referral | None, event: Event, *stored: Document, now: datetime = NOW) -> Referral | None:
    """What the reaction table makes of an event; the referral itself where it ignores it."""
    row = REFERRALS.rows[event.type]
    decide = row.decision_for(referral)
    if decide is None:
        return referral
    facts = loaded(row.wants(event, referral) if row.wants else (), stored)
    decided: Referral | None = decide(referral, event, facts, now)
    return decided


def tell(referral: Referral, *events: Event, stored: Iterable[Document] = (), now: datetime = NOW) -> Referral:
    """Give events to a referral, and then its own, until it has said all."""
    documents = tuple(stored)
    for event in events:
        react(referral, event, *documents, now=now)
    heard = 0
    while heard < len(own := [e for e in referral.recorded() if e.type in REFERRALS.rows and _for(referral, e)]):
        react(referral, own[heard], *documents, now=now)
        heard += 1
    return referral


def _for(referral: Referral, event: Event) -> bool:
    route = REFERRALS.rows[event.type].route
    return callable(route) and referral.id in route(event)


def recorded(referral: Document, kind: type[Event]) -> list[Event]:
    """The events of one type that it recorded."""
    return [event for event in referral.recorded() if isinstance(event, kind)]


# -- events -------------------------------------------------------------------------------------------------------

PERSON_KNOWN = PersonKnown(patient_id=PATIENT)
LISTED = SpecialistListed(specialist_id=FIRST, specialty="dermatology")
_AUTHORIZATION = {"authorization_id": AUTHORIZATION, "referral_id": REFERRAL, "patient_id": PATIENT}
_APPOINTMENT = {"patient_id": PATIENT, "referral_id": REFERRAL}

NOT_REQUIRED = AuthorizationNotRequired(**_AUTHORIZATION, rule="no-rule-asks")
SUBMITTED = AuthorizationSubmitted(**_AUTHORIZATION, payer_id=PAYER)
PENDED = AuthorizationPended(**_AUTHORIZATION, payer_id=PAYER)
DENIED = AuthorizationDenied(**_AUTHORIZATION, reasons=("35",), final=False)
REFUSED = AuthorizationDenied(**_AUTHORIZATION, reasons=("35",), final=True)
APPEALED = AuthorizationAppealed(**_AUTHORIZATION, level=1)
WITHDRAWN = AuthorizationCancelled(**_AUTHORIZATION, reason="payer")


def approved(valid_from: date | None = None, valid_to: date | None = None) -> AuthorizationApproved:
    """The payer's approval."""
    return AuthorizationApproved(
        **_AUTHORIZATION,
        action=ReviewAction.CERTIFIED,
        number="AUTH-1",
        valid_from=valid_from,
        valid_to=valid_to,
        units_requested=1,
        units_granted=1,
    )


def booked(id: str = APPOINTMENT, start: datetime = NOW + timedelta(days=10)) -> AppointmentBooked:
    """A date of the referral."""
    return AppointmentBooked(
        **_APPOINTMENT, appointment_id=id, resource_id=FIRST, start=start, end=start + timedelta(minutes=30)
    )


def moved(start: datetime, id: str = APPOINTMENT) -> AppointmentRescheduled:
    """The date, moved."""
    return AppointmentRescheduled(
        **_APPOINTMENT,
        appointment_id=id,
        resource_id=FIRST,
        start=start,
        end=start + timedelta(minutes=30),
        previous_start=NOW,
        occurrence=2,
    )


def called_off(id: str = APPOINTMENT) -> AppointmentCancelled:
    """The date, called off by the patient."""
    return AppointmentCancelled(**_APPOINTMENT, appointment_id=id, by=CancelledBy.PATIENT, reason="patient-request")


def missed(id: str = APPOINTMENT) -> AppointmentNoShow:
    """The patient did not come."""
    return AppointmentNoShow(**_APPOINTMENT, appointment_id=id)


def fulfilled(id: str = APPOINTMENT) -> AppointmentFulfilled:
    """The patient was seen."""
    return AppointmentFulfilled(**_APPOINTMENT, appointment_id=id)


def report(**changes: object) -> model.FileReport:
    """The consult report of this referral."""
    fields: dict[str, object] = {"report_id": REPORT, "based_on": REFERRAL, "patient_id": PATIENT}
    return model.FileReport.model_validate(fields | changes)


# -- a referral in each state -------------------------------------------------------------------------------------


def authorizing(**changes: object) -> Referral:
    """With the payer."""
    return tell(requested(**changes), PERSON_KNOWN, stored=[known()])


def sent(*specialists: Specialist, **changes: object) -> Referral:
    """With the specialist."""
    return tell(authorizing(**changes), NOT_REQUIRED, stored=[known(), *(specialists or (specialist(),))])


def accepted(**changes: object) -> Referral:
    """Taken by the specialist."""
    return model.accept(sent(**changes), model.Accept(), NO_FACTS, NOW)


def scheduled() -> Referral:
    """With a date."""
    return tell(accepted(), booked())


def in_state(state: State) -> Referral:
    """A referral that came to this state the usual way."""
    made = _made(state)
    assert made.state is state
    return made


def _made(state: State) -> Referral:
    match state:
        case State.AWAITING_ORDER:
            return requested(order_status=model.OrderStatus.DRAFT)
        case State.AWAITING_PATIENT:
            return requested()
        case State.AWAITING_PACKET:
            return tell(requested(packet=()), PERSON_KNOWN, stored=[known()])
        case State.AWAITING_COVERAGE:
            return tell(requested(), PERSON_KNOWN, stored=[known(status=CoverageStatus.LAPSED)])
        case State.AWAITING_AUTHORIZATION:
            return authorizing()
        case State.AWAITING_SPECIALIST:
            return tell(authorizing(), NOT_REQUIRED, stored=[known()])
        case State.AWAITING_ACCEPTANCE:
            return sent()
        case State.AWAITING_APPOINTMENT:
            return accepted()
        case State.AWAITING_VISIT:
            return scheduled()
        case State.AWAITING_REPORT:
            return tell(scheduled(), fulfilled())
        case State.CLOSED:
            return model.close(scheduled(), report(), NO_FACTS, NOW)
        case State.REJECTED:
            return model.reject(sent(), model.Reject(reason="full"), NO_FACTS, NOW)
        case State.CANCELLED:
            return model.cancel(scheduled(), model.Cancel(reason="patient-request"), NO_FACTS, NOW)
        case State.FAILED:
            return tell(authorizing(), REFUSED)
        case State.ENTERED_IN_ERROR:
            return model.mark_entered_in_error(scheduled(), model.MarkEnteredInError(), NO_FACTS, NOW)

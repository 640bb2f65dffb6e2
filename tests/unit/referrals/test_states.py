"""Every state of a referral against every message it can get: where each pair leads, and that no other moves it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.referrals import model
from services.referrals.model import LIVE, TERMINAL, TRANSITIONS, Referral, State
from services.referrals.model.stages import PATH
from services.referrals.reactions import REFERRALS
from shared.contracts.base import Event
from shared.contracts.intake import CoverageStatus
from shared.contracts.prior_authorization import AuthorizationEscalated
from shared.contracts.referrals import (
    AlternativeWanted,
    Priority,
    ReferralRequested,
    SpecialistAvailable,
    SpecialistWanted,
)
from shared.kit.decisions import NO_FACTS
from shared.kit.errors import DomainError
from tests.unit.referrals import cases

S = State
PERSON, LAPSED = cases.known(), cases.known(status=CoverageStatus.LAPSED)
ON_FILE = (PERSON, cases.specialist())
AHEAD = dict.fromkeys(LIVE, S.AWAITING_REPORT)
PAID_FOR = (
    S.AWAITING_AUTHORIZATION,
    S.AWAITING_SPECIALIST,
    S.AWAITING_ACCEPTANCE,
    S.AWAITING_APPOINTMENT,
    S.AWAITING_VISIT,
)

ESCALATED = AuthorizationEscalated(
    authorization_id=cases.AUTHORIZATION,
    referral_id=cases.REFERRAL,
    patient_id=cases.PATIENT,
    state="pended",
    since=cases.NOW,
    deadline=cases.NOW,
    owner="coordinator",
)
REQUESTED = ReferralRequested(
    referral_id=cases.REFERRAL,
    patient_id=cases.PATIENT,
    specialty="dermatology",
    service=cases.order().service,
    priority=Priority.ROUTINE,
    requester_id=cases.uid("clinician"),
    authored_on=cases.NOW,
)
ALTERNATIVE = next(e for e in cases.in_state(S.REJECTED).recorded() if isinstance(e, AlternativeWanted)).model_copy(
    update={"alternative_id": cases.REFERRAL}
)

KNOWN_PERSON = {
    S.AWAITING_PATIENT: S.AWAITING_AUTHORIZATION,
    S.AWAITING_COVERAGE: S.AWAITING_AUTHORIZATION,
}
TO_COVERAGE = dict.fromkeys(PAID_FOR, S.AWAITING_COVERAGE)
FOUND = {S.AWAITING_SPECIALIST: S.AWAITING_ACCEPTANCE}
# A grant ends the authorization's wait; while coverage is lapsed it is only kept.
GRANTED = {S.AWAITING_AUTHORIZATION: S.AWAITING_SPECIALIST}
# Where the payer had said yes, losing that sends the referral back to where payment is made sure of.
LOST = {
    S.AWAITING_AUTHORIZATION: S.FAILED,
    S.AWAITING_SPECIALIST: S.AWAITING_COVERAGE,
    S.AWAITING_ACCEPTANCE: S.AWAITING_COVERAGE,
    S.AWAITING_APPOINTMENT: S.AWAITING_COVERAGE,
    S.AWAITING_VISIT: S.AWAITING_COVERAGE,
}
DATE = {S.AWAITING_APPOINTMENT: S.AWAITING_VISIT}
NO_DATE = {S.AWAITING_VISIT: S.AWAITING_APPOINTMENT}

EVENTS: list[tuple[str, Event, tuple[object, ...], dict[State, State]]] = [
    ("own request, person known", REQUESTED, ON_FILE, KNOWN_PERSON),
    ("person known", cases.PERSON_KNOWN, ON_FILE, KNOWN_PERSON),
    (
        "person known, coverage lapsed",
        cases.PERSON_KNOWN,
        (LAPSED, cases.specialist()),
        {S.AWAITING_PATIENT: S.AWAITING_COVERAGE, **TO_COVERAGE},
    ),
    ("specialist wanted", SpecialistWanted(referral_id=cases.REFERRAL), ON_FILE, FOUND),
    ("specialist listed", cases.LISTED, ON_FILE, FOUND),
    ("specialist available", SpecialistAvailable(specialist_id=cases.FIRST), ON_FILE, FOUND),
    ("specialist listed, none left", cases.LISTED, (PERSON,), {}),
    ("alternative wanted", ALTERNATIVE, (), {}),
    ("authorization not required", cases.NOT_REQUIRED, (), GRANTED),
    ("authorization submitted", cases.SUBMITTED, (), {}),
    ("authorization pended", cases.PENDED, (), {}),
    ("authorization approved", cases.approved(), (), GRANTED),
    ("authorization denied, appeal open", cases.DENIED, (), {}),
    ("authorization denied for good", cases.REFUSED, (), LOST),
    ("authorization appealed", cases.APPEALED, (), {}),
    ("authorization cancelled", cases.WITHDRAWN, (), LOST),
    ("authorization escalated", ESCALATED, (), {}),
    ("appointment booked", cases.booked(), (), DATE),
    ("appointment rescheduled", cases.moved(cases.NOW), (), DATE),
    ("appointment cancelled", cases.called_off(), (), NO_DATE),
    ("appointment missed", cases.missed(), (), NO_DATE),
    ("appointment fulfilled", cases.fulfilled(), (), AHEAD),
    ("another appointment cancelled", cases.called_off(cases.uid("other")), (), {}),
    ("another appointment missed", cases.missed(cases.uid("other")), (), {}),
]


@pytest.mark.parametrize("state", list(State), ids=str)
@pytest.mark.parametrize(("name", "event", "stored", "leads"), EVENTS, ids=[row[0] for row in EVENTS])
def test_an_event_leads_where_the_table_says_and_nowhere_else(
    state: State, name: str, event: Event, stored: tuple[model.Person, ...], leads: dict[State, State]
) -> None:
    referral = cases.in_state(state)
    referral.recorded().clear()
    history, wait = list(referral.history), referral.wait and referral.wait.model_copy()
    told = cases.react(referral, event, *stored, now=cases.NOW)
    assert told is not None
    assert told.state is leads.get(state, state)
    if state in TERMINAL:
        assert (told.history, told.recorded()) == (history, [])
    elif told.state in LIVE:
        assert told.wait is not None
        assert told.wait.deadline > cases.NOW
    if (
        told.state is state
        and state in LIVE
        and state is not S.AWAITING_AUTHORIZATION
        and state is not S.AWAITING_VISIT
    ):
        assert told.wait is not None
        assert wait is not None
        assert told.wait.deadline == wait.deadline, "a wait that goes on keeps its deadline"


def test_the_table_of_events_above_is_complete() -> None:
    assert {event.type for _, event, _, _ in EVENTS} == set(REFERRALS.rows)


Command = Callable[[Referral], Referral]
REFUSED = None


def _ask(decide: Callable[..., Referral], command: object) -> Command:
    return lambda referral: decide(referral, command, NO_FACTS, cases.NOW)


LIVE_TO_CLOSED = dict.fromkeys(LIVE, S.CLOSED)
UNSEALED = (
    S.AWAITING_ORDER,
    S.AWAITING_PATIENT,
    S.AWAITING_PACKET,
    S.AWAITING_COVERAGE,
    S.AWAITING_AUTHORIZATION,
    S.AWAITING_SPECIALIST,
)
PACKET = model.AddToPacket(
    items=tuple(cases.item(kind, "more") for kind in (model.PacketKind.REASON, "medications", "photo"))
)
COMMANDS: list[tuple[str, Command, dict[State, State]]] = [
    ("activate", _ask(model.activate, model.ActivateOrder()), {S.AWAITING_ORDER: S.AWAITING_PATIENT}),
    (
        "add to packet",
        _ask(model.add_to_packet, PACKET),
        {**{s: s for s in UNSEALED}, S.AWAITING_PACKET: S.AWAITING_AUTHORIZATION},
    ),
    ("accept", _ask(model.accept, model.Accept()), {S.AWAITING_ACCEPTANCE: S.AWAITING_APPOINTMENT}),
    ("reject", _ask(model.reject, model.Reject(reason="full")), {S.AWAITING_ACCEPTANCE: S.REJECTED}),
    # The report that closed a referral, filed again, changes nothing.
    ("report", _ask(model.close, cases.report()), {**LIVE_TO_CLOSED, S.CLOSED: S.CLOSED}),
    ("another report", _ask(model.close, cases.report(report_id=cases.uid("other"))), LIVE_TO_CLOSED),
    ("report of another referral", _ask(model.close, cases.report(based_on=cases.uid("other"))), {}),
    ("report of another patient", _ask(model.close, cases.report(patient_id=cases.uid("other"))), {}),
    ("cancel", _ask(model.cancel, model.Cancel(reason="patient-request")), dict.fromkeys(LIVE, S.CANCELLED)),
    (
        "entered in error",
        _ask(model.mark_entered_in_error, model.MarkEnteredInError()),
        dict.fromkeys(LIVE, S.ENTERED_IN_ERROR),
    ),
    ("acknowledge", _ask(model.acknowledge, model.Acknowledge(acknowledged_on=cases.NOW)), {s: s for s in State}),
    (
        "note progress",
        _ask(model.note_progress, model.NoteProgress(progress=model.Progress.FAILED)),
        {s: s for s in State},
    ),
    ("order again", _ask(model.request, cases.order()), {}),
]


@pytest.mark.parametrize("state", list(State), ids=str)
@pytest.mark.parametrize(("name", "command", "leads"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_a_command_leads_where_the_table_says_and_is_refused_by_name_elsewhere(
    state: State, name: str, command: Command, leads: dict[State, State]
) -> None:
    referral = cases.in_state(state)
    before = referral.copy_deep()
    if state in leads:
        assert command(referral).state is leads[state]
        return
    with pytest.raises(DomainError) as refusal:
        command(referral)
    assert refusal.value.status in (409, 422)
    assert referral.model_dump() == before.model_dump(), "a refusal changes nothing"
    assert referral.recorded() == before.recorded()


@pytest.mark.parametrize("state", sorted(LIVE), ids=str)
def test_every_live_state_waits_for_somebody_with_a_reason_and_a_deadline(state: State) -> None:
    wait = cases.in_state(state).wait
    assert wait is not None
    assert wait.owner in set(model.Owner)
    assert wait.reason in set(model.Reason)
    assert wait.deadline > wait.since


@pytest.mark.parametrize("state", sorted(TERMINAL), ids=str)
def test_an_ended_referral_waits_for_nothing_and_has_no_timers(state: State) -> None:
    ended = cases.in_state(state)
    assert ended.wait is None
    assert ended.timers == {}
    assert ended.seeking is None
    assert model.missing(ended) == ()


def test_every_state_has_a_row_and_every_live_state_can_end() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(State) == LIVE | TERMINAL
    for state in PATH:
        assert {S.CLOSED, S.CANCELLED, S.ENTERED_IN_ERROR} <= TRANSITIONS[state]
    for state in TERMINAL:
        assert TRANSITIONS[state] == frozenset()

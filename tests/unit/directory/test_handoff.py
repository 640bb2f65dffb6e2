"""A recorded barrier leads to help, or to a person who looks for it."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from services.directory.model import handoff
from services.directory.model.handoff import (
    AcceptOffer,
    CloseHandOff,
    Declined,
    DeclineOffer,
    HandOff,
    OfferTo,
    OpenHandOff,
    Person,
    Step,
    ranked,
)
from services.directory.model.places import home_of
from shared.contracts.directory import (
    HandOffAccepted,
    HandOffClosed,
    HandOffEscalated,
    HandOffOffered,
    HandOffOpened,
    HandOffOutcome,
    HandOffUnmatched,
    NeedServed,
    PersonLocated,
    ServiceListed,
    ServiceStatus,
)
from shared.contracts.intake import Barrier, BarrierRecorded, PersonChanged
from shared.kit.decisions import NO_FACTS, Due, Facts, Where
from shared.kit.errors import Conflict, IllegalTransition, Invalid
from tests.unit.directory.cases import NOW, PATIENT, World, changed, listed, person, record, uid


def due() -> Due:
    return Due("deadline", NOW)


def test_a_recorded_barrier_is_offered_to_the_service_that_meets_it_and_closes_when_helped() -> None:
    rides = listed(record("Rides"))
    world = World(rides, who=person())
    world.open()
    assert world.handoff is not None
    assert (world.handoff.state, world.handoff.offered_to) == (Step.OFFERED, rides.id)
    world.do(AcceptOffer(rides.id), handoff.accept)
    assert world.handoff.state is Step.ACCEPTED
    world.do(CloseHandOff(HandOffOutcome.HELPED), handoff.close)
    assert world.handoff.ended
    assert world.handoff.due is None
    assert world.handoff.home == ()
    told = [type(event) for event in world.events if event.topic == "directory.events"]
    assert told == [HandOffOpened, HandOffOffered, HandOffAccepted, HandOffClosed]
    closed = world.seen(HandOffClosed)[0]
    assert isinstance(closed, HandOffClosed)
    assert (closed.outcome, closed.service_id) == (HandOffOutcome.HELPED, rides.id)


def test_the_same_barrier_recorded_again_is_the_same_hand_off() -> None:
    world = World(listed(record("Rides")), who=person())
    first = world.open()
    again = handoff.open_for_barrier(
        first, BarrierRecorded(patient_id=PATIENT, barrier=Barrier.TRANSPORTATION), NO_FACTS, NOW
    )
    assert again is first
    assert not again.recorded()


def test_a_hand_off_of_a_patient_not_heard_of_waits_and_goes_on_when_they_are_known() -> None:
    world = World(listed(record("Rides")))
    waiting = world.open()
    assert waiting.state is Step.OPENED
    assert waiting.wait is not None
    assert waiting.wait.reason == "person-unknown"
    world.person = person()
    assert world.deliver(PersonLocated(patient_id=PATIENT)).state is Step.OFFERED


def test_services_are_ranked_by_place_then_language_with_nationwide_and_virtual_last() -> None:
    virtual = record("Virtual", areas=(), languages=("es",))
    services = [
        listed(virtual),
        listed(record("Nationwide", areas=("US",), languages=("es",))),
        listed(record("Statewide", areas=("US-IL",))),
        listed(record("Section English", areas=("606*",))),
        listed(record("Section Spanish", areas=("606*",), languages=("spa",))),
        listed(record("City", areas=("Chicago IL",))),
        listed(record("Postal code", areas=("60601",))),
        listed(record("Elsewhere", areas=("10001",))),
        listed(record("Closed", areas=("60601",), status="temporarily closed")),
        listed(record("Pills", areas=("60601",), terms=("prescription-assistance",))),
    ]
    case = HandOff(
        id=uid("h"), patient_id=PATIENT, barrier=Barrier.TRANSPORTATION, language="es",
        home=home_of("60601-1234", "chicago", "il"),
    )  # fmt: skip
    wanted = ["Postal code", "City", "Section Spanish", "Section English", "Statewide", "Nationwide", "Virtual"]
    for order in itertools.islice(itertools.permutations(services), 0, 3_000_000, 300_007):
        assert [service.name for service in ranked(case, order)] == wanted


def test_an_interpreter_who_does_not_speak_the_language_is_never_offered() -> None:
    near = listed(record("Near", terms=("interpreter",), areas=("60601",), languages=("pl",)))
    far = listed(record("Far", terms=("interpreter",), areas=("US",), languages=("es",)))
    world = World(near, far, who=person(language="es-MX"))
    assert world.open(Barrier.INTERPRETER, "es").offered_to == far.id


def test_a_stale_record_ranks_behind_a_verified_one() -> None:
    stale = listed(record("A", assured_date="2019-05-01"))
    fresh = listed(record("B", assured_date="2026-02-01"))
    case = HandOff(id=uid("h"), patient_id=PATIENT, barrier=Barrier.TRANSPORTATION, home=home_of("60601", None, None))
    assert stale.stale
    assert [service.name for service in ranked(case, [stale, fresh])] == ["B", "A"]


def test_a_declined_offer_goes_to_the_next_service_and_then_to_a_coordinator() -> None:
    first, second = listed(record("First", areas=("60601",))), listed(record("Second", areas=("US",)))
    world = World(first, second, who=person())
    world.open()
    world.do(DeclineOffer(first.id, Declined.NO_CAPACITY), handoff.decline)
    assert world.handoff is not None
    assert (world.handoff.state, world.handoff.offered_to) == (Step.OFFERED, second.id)
    world.do(DeclineOffer(second.id, Declined.OUT_OF_AREA), handoff.decline)
    assert world.handoff.state is Step.UNMATCHED
    assert world.handoff.wait is not None
    assert world.handoff.wait.owner == "coordinator"
    assert len(world.seen(HandOffUnmatched)) == 1


def test_a_service_listed_later_is_offered_to_an_unmatched_hand_off() -> None:
    world = World(who=person())
    assert world.open().watching is Barrier.TRANSPORTATION
    late = listed(record("Late"))
    world.services[late.id] = late
    after = world.deliver(NeedServed(service_id=late.id, need=Barrier.TRANSPORTATION))
    assert (after.state, after.offered_to, after.watching) == (Step.OFFERED, late.id, None)


def test_a_service_listed_while_the_search_is_written_is_not_missed() -> None:
    world = World(who=person())
    case = world.open()
    case.state = Step.SEARCHING
    late = listed(record("Late"))
    world.services[late.id] = late
    assert world.deliver(NeedServed(service_id=late.id, need=Barrier.TRANSPORTATION)).offered_to == late.id


def test_a_service_that_does_not_reach_the_patient_leaves_the_wait_and_its_deadline_alone() -> None:
    world = World(who=person())
    before = world.open().wait
    far = listed(record("Far", areas=("US-NY",)))
    world.services[far.id] = far
    world.now = NOW + timedelta(hours=5)
    after = world.deliver(NeedServed(service_id=far.id, need=Barrier.TRANSPORTATION))
    assert after.wait == before
    assert len(world.seen(HandOffUnmatched)) == 1


@pytest.mark.parametrize("status", [ServiceStatus.INACTIVE, ServiceStatus.DEFUNCT, ServiceStatus.TEMPORARILY_CLOSED])
def test_an_asked_service_that_ceases_is_not_waited_for(status: ServiceStatus) -> None:
    first, second = listed(record("First", areas=("60601",))), listed(record("Second"))
    world = World(first, second, who=person())
    assert world.open().offered_to == first.id
    world.services[first.id] = listed(record("First", areas=("60601",), status=status.value), first)
    assert world.deliver(ServiceListed(service_id=first.id, status=status)).offered_to == second.id


def test_a_service_that_ceases_before_its_offer_is_written_is_not_waited_for() -> None:
    first, second = listed(record("First", areas=("60601",))), listed(record("Second"))
    world = World(first, second, who=person())
    case = world.open()
    world.services[first.id] = listed(record("First", areas=("60601",), status="inactive"), first)
    offered = world.seen(HandOffOffered)[-1]
    assert case.offered_to == first.id
    assert world.deliver(offered).offered_to == second.id


def test_moving_house_makes_an_unmatched_hand_off_look_again_and_leaves_an_offer_alone() -> None:
    rides = listed(record("Rides", areas=("10001",)))
    world = World(rides, who=person())
    assert world.open().state is Step.UNMATCHED
    assert world.person is not None
    world.person = handoff.keep_person(world.person, changed("10001", "New York", "NY"), NO_FACTS, NOW)
    assert world.deliver(PersonLocated(patient_id=PATIENT)).offered_to == rides.id
    world.person = handoff.keep_person(world.person, changed("60601"), NO_FACTS, NOW)
    assert world.deliver(PersonLocated(patient_id=PATIENT)).offered_to == rides.id


def test_a_patient_without_an_address_is_offered_what_needs_none() -> None:
    local, anywhere = listed(record("Local")), listed(record("Anywhere", areas=("US",)))
    world = World(local, anywhere, who=person(None, None, None))
    assert world.open().offered_to == anywhere.id


def test_erasure_forgets_the_person_and_cancels_the_hand_off() -> None:
    world = World(listed(record("Rides")), who=person())
    world.open()
    assert world.person is not None
    world.person.recorded().clear()
    world.person = handoff.keep_person(world.person, PersonChanged(patient_id=PATIENT, erased=True), NO_FACTS, NOW)
    assert world.person.ended
    assert world.person.postal_code is world.person.city is world.person.region is None
    assert world.person.recorded() == [PersonLocated(patient_id=PATIENT, erased=True)]
    after = world.deliver(PersonLocated(patient_id=PATIENT, erased=True))
    assert (after.state, after.outcome, after.home) == (Step.CLOSED, HandOffOutcome.CANCELLED, ())


def test_a_person_who_did_not_move_is_not_announced_again() -> None:
    known = person()
    known.recorded().clear()
    assert not handoff.keep_person(known, changed(), NO_FACTS, NOW).recorded()
    assert len(handoff.keep_person(known, changed(language="es"), NO_FACTS, NOW).recorded()) == 1


def test_a_late_answer_cannot_answer_for_another_service() -> None:
    first, second = listed(record("First", areas=("60601",))), listed(record("Second"))
    world = World(first, second, who=person())
    world.open()
    world.do(DeclineOffer(first.id, Declined.OTHER), handoff.decline)
    with pytest.raises(Conflict):
        world.do(AcceptOffer(first.id), handoff.accept)
    with pytest.raises(Conflict):
        world.do(DeclineOffer(first.id, Declined.OTHER), handoff.decline)


def test_a_service_that_accepted_and_cannot_help_after_all_is_replaced() -> None:
    first, second = listed(record("First", areas=("60601",))), listed(record("Second"))
    world = World(first, second, who=person())
    world.open()
    world.do(AcceptOffer(first.id), handoff.accept)
    assert world.do(DeclineOffer(first.id, Declined.NO_CAPACITY), handoff.decline).offered_to == second.id


def test_a_coordinator_may_ask_any_active_service() -> None:
    elsewhere = listed(record("Elsewhere", areas=("10001",)))
    world = World(elsewhere, who=person())
    world.open()
    after = world.do(OfferTo(elsewhere.id), handoff.offer_to, handoff.asked_service)
    assert (after.state, after.offered_to) == (Step.OFFERED, elsewhere.id)
    with pytest.raises(Conflict):
        world.do(OfferTo(elsewhere.id), handoff.offer_to, handoff.asked_service)
    with pytest.raises(Invalid) as refused:
        world.do(OfferTo(uid("nobody")), handoff.offer_to, handoff.asked_service)
    assert refused.value.flaws[0].path == "service_id"


def test_an_inactive_service_cannot_be_asked() -> None:
    closed = listed(record("Closed", status="inactive"))
    world = World(closed, who=person())
    world.open()
    with pytest.raises(Conflict):
        world.do(OfferTo(closed.id), handoff.offer_to, handoff.asked_service)


@pytest.mark.parametrize("outcome", [HandOffOutcome.HELPED, HandOffOutcome.NO_SERVICE])
def test_an_outcome_must_fit_the_state(outcome: HandOffOutcome) -> None:
    world = World(listed(record("Rides")), who=person())
    world.open()
    with pytest.raises(Conflict):
        world.do(CloseHandOff(outcome), handoff.close)


def test_no_service_closes_an_unmatched_hand_off_for_good() -> None:
    world = World(who=person())
    world.open()
    assert world.do(CloseHandOff(HandOffOutcome.NO_SERVICE), handoff.close).ended
    with pytest.raises(IllegalTransition):
        world.do(CloseHandOff(HandOffOutcome.CANCELLED), handoff.close)
    with pytest.raises(IllegalTransition):
        world.do(AcceptOffer(uid("any")), handoff.accept)


def test_a_need_that_came_up_again_opens_anew_only_after_the_earlier_one_ended() -> None:
    world = World(who=person())
    world.open()
    command = OpenHandOff(uid("again"), PATIENT, Barrier.TRANSPORTATION, "en")
    facts = world.facts(handoff.others_of_patient(command, None))
    with pytest.raises(Conflict):
        handoff.open_again(None, command, facts, NOW)
    world.do(CloseHandOff(HandOffOutcome.NO_SERVICE), handoff.close)
    facts = world.facts(handoff.others_of_patient(command, None))
    assert handoff.open_again(None, command, facts, NOW).state is Step.OPENED


@pytest.mark.parametrize("state", sorted(handoff.OPEN))
def test_each_wait_escalates_once_and_only_after_its_deadline(state: Step) -> None:
    case = _in_state(state)
    assert case.wait is not None
    deadline = case.wait.deadline
    case.recorded().clear()
    handoff.overdue(case, due(), NO_FACTS, deadline - timedelta(milliseconds=1))
    assert not case.recorded()
    handoff.overdue(case, due(), NO_FACTS, deadline)
    handoff.overdue(case, due(), NO_FACTS, deadline + timedelta(days=9))
    escalated = case.recorded()
    assert [type(event) for event in escalated] == [HandOffEscalated]
    assert isinstance(escalated[0], HandOffEscalated)
    assert (escalated[0].state, escalated[0].deadline) == (state.value, deadline)
    assert case.state is state


def _in_state(state: Step) -> HandOff:
    rides = listed(record("Rides"))
    unknown, matched, unmatched = World(rides), World(rides, who=person()), World(who=person())
    if state is Step.OPENED:
        return unknown.open()
    if state is Step.UNMATCHED:
        return unmatched.open()
    case = matched.open()
    if state is Step.ACCEPTED:
        return matched.do(AcceptOffer(rides.id), handoff.accept)
    if state is Step.SEARCHING:
        return handoff.decline(case, DeclineOffer(rides.id, Declined.OTHER), NO_FACTS, NOW)
    return case


def test_what_is_wanted_for_the_search_is_bounded_by_places_not_by_services() -> None:
    case = World(who=person()).open()
    wanted = list(handoff.suppliers(None, case))
    assert len(wanted) == len(case.home) == 6
    assert all(isinstance(want, Where) and want.limit == handoff.CANDIDATES for want in wanted)


def test_no_event_tells_where_a_person_lives() -> None:
    world = World(listed(record("Rides")), who=person())
    world.open()
    assert world.person is not None
    for event in (*world.events, *world.person.recorded()):
        assert "60601" not in event.model_dump_json()
        assert "Chicago" not in event.model_dump_json()


def test_facts_that_were_not_wanted_are_not_read() -> None:
    case = _in_state(Step.SEARCHING)
    with pytest.raises(KeyError):
        handoff.match(case, NeedServed(service_id=uid("x"), need=Barrier.TRANSPORTATION), Facts({}), NOW)
    assert isinstance(person(), Person)

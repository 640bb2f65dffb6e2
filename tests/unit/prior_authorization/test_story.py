"""The whole service against the scripted payer: each case ends as its script says, and as the payer's ledger has it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from deploy.simulators.adjudication import Script
from services.prior_authorization.model import Authorization, Member, MemberState, State
from services.prior_authorization.model.budget import FLOOR
from services.prior_authorization.model.visits import authorization_id
from shared.contracts.referrals import Priority, ReferralCancelled, ReferralRejected, ReferralRequested
from shared.kit.auth import Role
from tests.unit.prior_authorization.cases import CONSULT, NOW, OFFICE_VISIT, uid
from tests.unit.prior_authorization.world import World

AT_ONCE = ["submitted", "approved"]
PENDED = ["submitted", "pended", "approved"]


@pytest.mark.parametrize(
    ("member_id", "hours", "state", "told"),
    [
        ("SBX-APPROVE-1", 0, State.APPROVED, AT_ONCE),
        ("anybody", 0, State.APPROVED, AT_ONCE),
        ("SBX-PARTIAL-1", 0, State.APPROVED, AT_ONCE),
        ("SBX-MODIFY-1", 0, State.APPROVED, AT_ONCE),
        ("SBX-NOTREQUIRED-1", 0, State.NO_ACTION, ["submitted", "not-required"]),
        ("SBX-CONTACT-1", 0, State.CONTACT_PAYER, ["submitted", "escalated"]),
        ("SBX-PEND-POLL-1", 48, State.APPROVED, PENDED),
        ("SBX-PEND-NOTIFY-1", 6, State.APPROVED, PENDED),
        ("SBX-PEND-NOTIFY-DUP-1", 6, State.APPROVED, PENDED),
        ("SBX-DENY-OVERTURN-1", 0, State.APPROVED, ["submitted", "denied", "appealed", "approved"]),
        ("SBX-DENY-1", 0, State.DENIED_FINAL, ["submitted", "denied", "appealed", "denied"]),
        (
            "SBX-PEND-NOTIFY-DENY-OVERTURN-1",
            12,
            State.APPROVED,
            ["submitted", "pended", "denied", "appealed", "approved"],
        ),
        ("SBX-BUSY-1", 2, State.APPROVED, AT_ONCE),
        ("SBX-ERROR-1", 2, State.APPROVED, AT_ONCE),
        ("SBX-LOST-1", 2, State.APPROVED, AT_ONCE),
        ("SBX-SLOW-1", 2, State.APPROVED, AT_ONCE),
        (
            "SBX-BUSY-LOST-PEND-POLL-DENY-1",
            72,
            State.DENIED_FINAL,
            ["submitted", "pended", "denied", "appealed", "denied"],
        ),
    ],
)
async def test_a_case_ends_as_the_payers_script_says(
    member_id: str, hours: float, state: State, told: list[str]
) -> None:
    world = World()
    await world.know("tess", member_id)
    await world.refer("tess")
    await world.until(hours)
    document = await world.of("tess")
    assert document.state is state
    assert world.events("tess") == told
    (case,) = world.payer.ledger.authorizations
    assert case.current is not None
    assert document.current is not None
    assert (document.current.action, document.current.number) == (case.current.action, case.current.number)
    assert [claim.attempt_id for claim in case.claims] == [claim.id for claim in document.submissions]
    if case.current.units_granted:
        assert document.current.units == case.current.units_granted


async def test_a_service_that_needs_no_approval_never_reaches_the_payer() -> None:
    world = World()
    await world.refer("tess", service=OFFICE_VISIT)
    await world.until()
    assert world.events("tess") == ["not-required"]
    assert world.payer.ledger.authorizations == []


@pytest.mark.parametrize("member_first", [True, False])
async def test_no_authorization_misses_its_member_whichever_comes_first(member_first: bool) -> None:
    world = World()
    if member_first:
        await world.know("tess", "SBX-APPROVE-1")
        await world.until()
        await world.refer("tess")
    else:
        await world.refer("tess")
        await world.until(1)
        assert (await world.of("tess")).state is State.AWAITING_MEMBER
        await world.know("tess", "SBX-APPROVE-1")
    await world.until(1)
    assert (await world.of("tess")).state is State.APPROVED


async def test_a_member_that_never_comes_escalates_once() -> None:
    world = World()
    await world.know("tess", None)
    await world.refer("tess")
    await world.until(24 * 10)
    document = await world.of("tess")
    assert document.state is State.AWAITING_MEMBER
    assert document.wait is not None
    assert document.wait.reason == "member-id-missing"
    assert world.events("tess") == ["escalated"]


async def test_a_payer_that_cannot_be_reached_escalates_once_and_is_asked_until_it_can() -> None:
    world = World()
    world.payer.outage(30, retry_after=3600)
    await world.know("tess", "SBX-APPROVE-1")
    await world.refer("tess")
    await world.until(96)
    assert (await world.of("tess")).state is State.APPROVED
    assert world.events("tess") == ["escalated", *AT_ONCE]


async def test_an_undecided_request_escalates_once_when_the_payers_clock_runs_out() -> None:
    world = World()
    await world.know("tess", "SBX-PEND-POLL-1")
    world.payer.script("SBX-PEND-POLL-1", Script(pend_hours=24 * 10))
    await world.refer("tess")
    await world.until(24 * 9)
    assert world.events("tess") == ["submitted", "pended", "escalated"]
    await world.until(24 * 12)
    assert world.events("tess") == ["submitted", "pended", "escalated", "approved"]


async def test_polls_keep_to_the_budget() -> None:
    world = World()
    await world.know("tess", "SBX-PEND-POLL-1")
    world.payer.script("SBX-PEND-POLL-1", Script(pend_hours=24 * 5))
    await world.refer("tess")
    await world.until(24 * 5)
    (case,) = world.payer.ledger.authorizations
    gaps = [later - earlier for earlier, later in zip(case.inquiries, case.inquiries[1:], strict=False)]
    assert len(case.inquiries) > 20
    assert min(gaps) >= FLOOR
    overnight, longest_pause, spread = timedelta(hours=14), timedelta(hours=4), timedelta(minutes=30)
    assert max(gaps) <= overnight + longest_pause + spread


@pytest.mark.parametrize("notified", [True, False])
async def test_a_payer_that_notifies_is_not_polled_on_the_same_business_day(notified: bool) -> None:
    world = World()
    await world.know("ana", "SBX-PEND-NOTIFY-1" if notified else "SBX-APPROVE-1")
    await world.know("tess", "SBX-PEND-POLL-1")
    await world.refer("ana")
    await world.until(5.5)
    await world.refer("tess")
    await world.until(8)
    case = next(case for case in world.payer.ledger.authorizations if case.member_id == "SBX-PEND-POLL-1")
    assert (len(case.inquiries) == 0) is notified
    await world.until(48)
    assert (await world.of("tess")).state is State.APPROVED


async def test_a_cancelled_referral_is_cancelled_with_the_payer() -> None:
    world = World()
    await world.know("tess", "SBX-PEND-POLL-1")
    await world.refer("tess")
    await world.until(1)
    await world.tell(ReferralCancelled, "tess", reason="patient")
    await world.until(2)
    (case,) = world.payer.ledger.authorizations
    assert (await world.of("tess")).state is State.WITHDRAWN
    assert world.events("tess") == ["submitted", "pended", "cancelled"]
    assert case.current is not None
    assert case.current.action == "C"
    assert [claim.certification_type for claim in case.claims] == ["I", "3"]


async def test_an_approval_that_a_rejected_referral_will_not_use_is_given_back() -> None:
    world = World()
    await world.know("tess", "SBX-APPROVE-1")
    await world.refer("tess")
    await world.until(1)
    await world.tell(ReferralRejected, "tess", specialist_id=uid("specialist"), reason="capacity")
    await world.until(2)
    assert (await world.of("tess")).state is State.WITHDRAWN


ALTERNATIVE = uid("alternative")


async def handed_on(world: World) -> str:
    """Tess' approval is carried to the alternative of her rejected referral; the authorization's id."""
    await world.know("tess", "SBX-APPROVE-1")
    id = await world.refer("tess")
    await world.until(1)
    heir = {"alternative_id": ALTERNATIVE, "authorization_carried": True, "authorization_id": id}
    await world.tell(ReferralRejected, "tess", specialist_id=uid("specialist"), reason="capacity", **heir)
    await world.until(2)
    return id


async def rely(world: World, id: str) -> None:
    """The alternative tells that it relies on the authorization."""
    await world.arrive(
        ReferralRequested(
            referral_id=ALTERNATIVE,
            patient_id=uid("patient", "tess"),
            specialty="dermatology",
            service=CONSULT,
            priority=Priority.ROUTINE,
            requester_id=uid("clinician"),
            authored_on=NOW,
            replaces=uid("referral", "tess"),
            authorization_id=id,
        ),
        ALTERNATIVE,
    )
    await world.settle()


def told_to_the_alternative(world: World) -> list[str]:
    events = world.harness.published("prior_authorization.events")
    return [type for type, event in events if f'"referral_id":"{ALTERNATIVE}"'.encode() in event["data"]]


async def test_an_approval_that_an_alternative_referral_relies_on_stays_in_force_and_is_told_to_it() -> None:
    world = World()
    await rely(world, await handed_on(world))
    document = await world.of("tess")
    assert (document.state, document.carried_to) == (State.APPROVED, ALTERNATIVE)
    assert told_to_the_alternative(world) == ["authorization.approved.v1"]


async def test_an_approval_that_was_handed_on_is_called_off_with_the_referral_that_relies_on_it() -> None:
    world = World()
    id = await handed_on(world)
    await rely(world, id)
    fields = {"referral_id": ALTERNATIVE, "patient_id": uid("patient", "tess"), "authorization_id": id}
    await world.arrive(ReferralCancelled(**fields, reason="patient-request"), ALTERNATIVE)
    await world.until(3)
    assert (await world.of("tess")).state is State.WITHDRAWN
    assert told_to_the_alternative(world) == ["authorization.approved.v1", "authorization.cancelled.v1"]


async def test_an_approval_lost_while_it_was_handed_on_is_told_to_the_referral_that_relies_on_it() -> None:
    world = World()
    id = await handed_on(world)
    async with world.harness.client(Role.COORDINATOR) as coordinator:
        await coordinator.post(f"/authorizations/{id}/cancel", json={}, headers=world.harness.key())
    await world.until(3)
    assert told_to_the_alternative(world) == []
    await rely(world, id)
    assert told_to_the_alternative(world) == ["authorization.cancelled.v1"]


async def test_a_denied_request_is_never_updated() -> None:
    world = World()
    await world.know("tess", "SBX-DENY-1")
    await world.refer("tess")
    await world.until(1)
    await world.tell(ReferralCancelled, "tess", reason="patient")
    await world.until(2)
    (case,) = world.payer.ledger.authorizations
    assert [claim.certification_type for claim in case.claims] == ["I", "2"]


async def test_an_erased_person_leaves_no_trace_here() -> None:
    world = World()
    await world.know("tess", "SBX-PEND-POLL-1")
    await world.refer("tess")
    await world.until(1)
    await world.know("tess", None, erased=True, family=None, given=(), birth_date=None, gender=None, coverage=None)
    await world.until(2)
    member = await world.harness.stored(Member, uid("patient", "tess"))
    assert member is not None
    assert member.state is MemberState.FORGOTTEN
    kept = json.dumps([raw.model_dump(mode="json") for raw in await world.harness.all(Member)])
    assert "Canaria" not in kept
    assert "SBX" not in kept


async def test_no_personal_data_is_published_or_stored_with_an_authorization() -> None:
    world = World()
    await world.know("tess", "SBX-PEND-NOTIFY-DENY-1", family="Zzcanary", given=("Qqcanary",))
    await world.refer("tess")
    await world.until(12)
    told = "".join(str(event) for event in world.harness.published("prior_authorization.events"))
    told += "".join(str(event) for event in world.harness.published("prior_authorization.work"))
    told += "".join(each.model_dump_json() for each in await world.harness.all(Authorization))
    assert authorization_id(uid("referral", "tess")) in told
    for canary in ("Zzcanary", "Qqcanary", "SBX-PEND", "1980-02-29"):
        assert canary not in told


async def test_replaying_every_event_changes_nothing() -> None:
    world = World()
    await world.know("tess", "SBX-DENY-OVERTURN-1")
    await world.refer("tess")
    await world.until(1)
    before = [each.model_dump() for each in await world.harness.all(Authorization)]
    world.harness.broker.rewind()
    await world.until(1)
    assert [each.model_dump() for each in await world.harness.all(Authorization)] == before

"""Whose visits an approval answers for: carried to another referral, handed to another payer, asked for anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.simulators.adjudication import Script
from services.prior_authorization.model import Authorization, State, authorization_id
from shared.contracts.prior_authorization import ReviewAction
from shared.contracts.referrals import ReferralRejected, ReferralRequested
from shared.contracts.scheduling import AppointmentBooked, AppointmentEvent, AppointmentFulfilled
from shared.kit.auth import Role
from tests.unit.prior_authorization.cases import uid
from tests.unit.prior_authorization.test_lifetime import DOCTOR, approved, book, of_another_payer, on_day, visit
from tests.unit.prior_authorization.world import World

FIRST, SECOND = uid("referral", "tess"), uid("referral", "tess-elsewhere")


async def visit_of(world: World, referral: str, name: str, kind: type[AppointmentEvent], **fields: object) -> None:
    """Scheduling tells of a visit of Tess for a referral."""
    ids = {"appointment_id": uid("visit", name), "patient_id": uid("patient", "tess"), "referral_id": referral}
    await world.arrive(kind.model_validate({**ids, **fields}), ids["appointment_id"])


async def book_of(world: World, referral: str, name: str, day: float, zone: str = "UTC") -> None:
    start = on_day(day)
    fields = {"resource_id": DOCTOR, "start": start, "end": start + timedelta(minutes=30), "timezone": zone}
    await visit_of(world, referral, name, AppointmentBooked, **fields)


async def carry(world: World) -> None:
    """The specialist declines; the alternative relies on the same approval."""
    ids = {"patient_id": uid("patient", "tess"), "authorization_id": authorization_id(FIRST)}
    rejected = ReferralRejected(
        referral_id=FIRST,
        specialist_id=DOCTOR,
        reason="full",
        alternative_id=SECOND,
        authorization_carried=True,
        **ids,
    )
    await world.arrive(rejected, FIRST)
    asked = {"referral_id": SECOND, "requester_id": uid("clinician"), "specialty": "dermatology"}
    await world.arrive(ReferralRequested.model_validate({**REQUESTED, **asked, **ids}), SECOND)


REQUESTED: dict[str, Any] = {
    "service": {"system": "http://www.ama-assn.org/go/cpt", "code": "99244"},
    "priority": "routine",
    "authored_on": datetime(2026, 3, 2, tzinfo=UTC),
}


async def of_authorization(world: World, id: str) -> Any:
    async with world.harness.client(Role.COORDINATOR) as client:
        return (await client.get(f"/authorizations/{id}")).json()


def approvals(world: World) -> list[dict[str, Any]]:
    return world.told("tess", "authorization.approved.v1")


# -- carried --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("booked_first", [True, False])
async def test_a_carried_approval_keeps_what_was_used_and_is_used_by_the_alternatives_visits(
    booked_first: bool,
) -> None:
    world = await approved()
    await book(world, "first", 1)
    await visit(world, "first", AppointmentFulfilled)
    if booked_first:  # topics keep no order between them
        await book_of(world, SECOND, "second", 5)
        await world.settle()
    await carry(world)
    await world.settle()
    if not booked_first:
        await book_of(world, SECOND, "second", 5)
        await world.settle()
    assert (await of_authorization(world, authorization_id(FIRST)))["units"] == {
        "granted": 4,
        "used": 1,
        "booked": 1,
        "remaining": 3,
    }
    assert [(each["referral_id"], each["units_used"]) for each in approvals(world)] == [(FIRST, 0), (SECOND, 1)]
    assert world.told("tess", "authorization.financial-notice.v1")[-1]["referral_id"] == SECOND
    await visit_of(world, SECOND, "second", AppointmentFulfilled)
    await world.settle()
    used = world.told("tess", "authorization.units-used.v1")
    assert [(each["referral_id"], each["units_used"], each["units_granted"]) for each in used] == [
        (FIRST, 1, 4),
        (SECOND, 2, 4),
    ]


# -- another payer --------------------------------------------------------------------------------------------------


async def test_a_visit_to_come_is_the_new_payers_and_the_old_payer_is_no_longer_told_of() -> None:
    world = await approved()
    await book(world, "first", 20)
    await of_another_payer(world)
    await world.until(2)
    old = await world.of("tess")
    new = await world.harness.stored(Authorization, old.transferred_to or "")
    assert new is not None
    assert new.state is State.APPROVED
    assert [each.appointment_id for each in new.visits] == [uid("visit", "first")]
    assert old.visits == []
    await visit(world, "first", AppointmentFulfilled)
    assert (await of_authorization(world, new.id))["units"]["used"] == 1
    assert (await of_authorization(world, old.id))["units"]["used"] == 0
    mine = [e for kind, e in world.harness.published("prior_authorization.events") if kind.endswith("notice.v1")]
    assert [e["headers"]["ce_subject"] for e in mine] == [old.id, new.id]


async def test_what_is_left_of_an_approval_in_use_is_asked_of_the_new_payer_in_its_place() -> None:
    world = await approved()
    await book(world, "first", 0.1)
    await visit(world, "first", AppointmentFulfilled)
    await book(world, "second", 20)
    async with world.harness.client(Role.COORDINATOR) as client:
        before = await world.of("tess")
        asked = {
            "patient_id": before.patient_id,
            "coverage_id": uid("coverage", "new"),
            "payer_id": "other-health",
            "items": [{"service": REQUESTED["service"], "quantity": 3}],
            "replaces": before.id,
        }
        refused = await client.post("/authorizations", json=asked, headers=world.harness.key())
        assert refused.status_code == 409, "what is approved is updated while its payer covers the patient"
        await of_another_payer(world)
        same = {**asked, "payer_id": before.payer_id}
        assert (await client.post("/authorizations", json=same, headers=world.harness.key())).status_code == 409
        answered = await client.post("/authorizations", json=asked, headers=world.harness.key())
    assert answered.status_code == 201, answered.text
    await world.until(2)
    new = await of_authorization(world, answered.json()["id"])
    assert new["units"] == {"granted": 3, "used": 0, "booked": 1, "remaining": 3}
    assert (new["continuity"]["units"], new["continuity"]["used"]) == (4, 1)
    assert (await of_authorization(world, before.id))["units"]["used"] == 1


# -- asked for anew -------------------------------------------------------------------------------------------------


async def test_what_is_asked_for_in_place_of_a_denied_one_answers_for_its_visits_also_those_that_took_place() -> None:
    world = await approved(Script(decision=ReviewAction.NOT_CERTIFIED, appeal=ReviewAction.NOT_CERTIFIED))
    await book(world, "first", 0.1)
    await visit(world, "first", AppointmentFulfilled)
    await book(world, "second", 5)
    before = await world.of("tess")
    assert before.state in (State.DENIED, State.DENIED_FINAL, State.APPEALING), before.state
    world.payer.script("M-1", Script())
    asked = {
        "patient_id": before.patient_id,
        "coverage_id": before.coverage_id,
        "payer_id": before.payer_id,
        "items": [{"service": REQUESTED["service"], "quantity": 3}],
        "replaces": before.id,
    }
    async with world.harness.client(Role.COORDINATOR) as client:
        answered = await client.post("/authorizations", json=asked, headers=world.harness.key())
    assert answered.status_code == 201, answered.text
    await world.until(3)
    units = (await of_authorization(world, answered.json()["id"]))["units"]
    assert units == {"granted": 3, "used": 1, "booked": 1, "remaining": 2}
    assert (await world.of("tess")).visits == []
    await world.until(24 * 5)
    warned = [each for each in world.told("tess", "authorization.escalated.v1") if "number" in each["reason"]]
    assert len(warned) == 1, "of the first visit, before it; the second has the number of the approval in its place"


# -- the date of service --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "cover"), [("Pacific/Honolulu", "covered"), ("Europe/London", "visit-outside-approval")]
)
async def test_the_date_of_service_is_the_day_at_the_place_of_the_visit(zone: str, cover: str) -> None:
    world = await approved(Script(period_days=30))
    ruling = (await world.of("tess")).current
    assert ruling is not None
    assert ruling.valid_to is not None
    late = datetime(ruling.valid_to.year, ruling.valid_to.month, ruling.valid_to.day, tzinfo=UTC) + timedelta(hours=32)
    await book_of(world, FIRST, "first", (late - on_day(0)) / timedelta(days=1), zone)
    await world.settle()
    (shown,) = (await of_authorization(world, authorization_id(FIRST)))["visits"]
    assert shown["cover"] == cover


async def test_a_visit_that_took_place_outside_the_approved_days_uses_no_unit() -> None:
    world = await approved(Script(period_days=2))
    await book(world, "late", 5)
    await world.until(24 * 5 + 1)
    await visit(world, "late", AppointmentFulfilled)
    assert (await of_authorization(world, authorization_id(FIRST)))["units"]["used"] == 0

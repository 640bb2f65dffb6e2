"""Life after approval: units used by visits, the number told before each, the end seen ahead of a visit after it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from deploy.simulators.adjudication import Script
from services.prior_authorization.model import Authorization, State, authorization_id
from services.prior_authorization.model.lifetime import EXTEND_BEFORE, NEAR
from shared.contracts.intake import PersonCoverage
from shared.contracts.prior_authorization import ReviewAction
from shared.contracts.scheduling import (
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentEvent,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
    CancelledBy,
)
from shared.kit.auth import Role
from tests.unit.prior_authorization.cases import NOW, uid
from tests.unit.prior_authorization.world import World

DOCTOR = uid("doctor")


async def approved(script: Script | None = None, **asked: object) -> World:
    """Tess' referral is approved for 4 units and 90 days, or as the script says."""
    world = World()
    await world.know("tess", "M-1")
    world.payer.script("M-1", script or Script())
    await world.refer("tess", **asked)
    await world.until(1)
    return world


def on_day(day: float) -> datetime:
    """A visit's start, so many days after the beginning."""
    return NOW + timedelta(days=day)


async def visit(world: World, name: str, kind: type[AppointmentEvent], **fields: object) -> None:
    """Scheduling tells of a visit of Tess."""
    ids = {"appointment_id": uid("visit", name), "patient_id": uid("patient", "tess")}
    event = kind.model_validate({**ids, "referral_id": uid("referral", "tess"), **fields})
    await world.arrive(event, ids["appointment_id"])
    await world.settle()


async def book(world: World, name: str, day: float) -> None:
    """A visit gets a date."""
    start = on_day(day)
    await visit(world, name, AppointmentBooked, resource_id=DOCTOR, start=start, end=start + timedelta(minutes=30))


async def move(world: World, name: str, day: float, before: float) -> None:
    """A visit gets another date."""
    start = on_day(day)
    fields: dict[str, object] = {"resource_id": DOCTOR, "start": start, "end": start + timedelta(minutes=30)}
    await visit(world, name, AppointmentRescheduled, **fields, previous_start=on_day(before), occurrence=2)


async def shown(world: World) -> Any:
    """The authorization as coordinators see it."""
    async with world.harness.client(Role.COORDINATOR) as client:
        return (await client.get(f"/authorizations/{authorization_id(uid('referral', 'tess'))}")).json()


def notices(world: World) -> list[dict[str, Any]]:
    """What financial services were told."""
    return world.told("tess", "authorization.financial-notice.v1")


def escalations(world: World) -> list[str]:
    """Why people were called."""
    return [event["reason"] for event in world.told("tess", "authorization.escalated.v1")]


# -- units ----------------------------------------------------------------------------------------------------------


async def test_visits_that_took_place_use_units_and_the_others_do_not() -> None:
    world = await approved()
    for name, day in (("first", 5), ("second", 6), ("third", 7), ("fourth", 8)):
        await book(world, name, day)
    await visit(world, "first", AppointmentFulfilled)
    await visit(world, "second", AppointmentNoShow)
    await visit(world, "third", AppointmentCancelled, by=CancelledBy.PATIENT, reason="ill")
    assert (await shown(world))["units"] == {"granted": 4, "used": 1, "booked": 1, "remaining": 3}


async def test_a_visit_that_is_told_of_twice_uses_one_unit() -> None:
    world = await approved()
    await book(world, "first", 5)
    await visit(world, "first", AppointmentFulfilled)
    await visit(world, "first", AppointmentFulfilled)
    await book(world, "first", 5)
    assert (await shown(world))["units"]["used"] == 1


async def test_a_visit_over_the_units_granted_is_shown_and_told_to_a_person() -> None:
    world = await approved(Script(decision=ReviewAction.PARTIAL, units=1))
    await book(world, "first", 5)
    await book(world, "second", 6)
    visits = (await shown(world))["visits"]
    assert [each["cover"] for each in visits] == ["covered", "visit-over-units"]
    await world.until(24 * 7)
    assert escalations(world) == ["visit-over-units"]


# -- the number, before the visit -----------------------------------------------------------------------------------


async def test_the_number_reaches_financial_services_before_the_visit_once_and_again_when_the_date_changes() -> None:
    world = await approved()
    await book(world, "first", 10)
    await book(world, "first", 10)
    (notice,) = notices(world)
    document = await world.of("tess")
    assert document.current is not None
    assert notice["number"] == document.current.number
    assert notice["appointment_id"] == uid("visit", "first")
    assert (notice["units_granted"], notice["units_used"]) == (4, 0)
    await move(world, "first", 12, 10)
    assert [told["visit_start"][:10] for told in notices(world)] == ["2026-03-12", "2026-03-14"]


async def test_a_visit_booked_before_the_approval_gets_its_number_with_it() -> None:
    world = await approved(Script(pend_hours=30))
    await book(world, "first", 10)
    assert notices(world) == []
    await world.until(24 * 4)
    assert (await world.of("tess")).state is State.APPROVED
    assert len(notices(world)) == 1
    await world.until(24 * 12)
    assert "visit-without-number" not in escalations(world)


async def test_a_visit_that_is_near_and_has_no_number_is_told_to_a_person_once() -> None:
    world = await approved(Script(pend_hours=24 * 30))
    await book(world, "first", 6)
    await world.until(24 * 6 - NEAR.total_seconds() / 3600 - 1)
    assert "visit-without-number" not in escalations(world)
    await world.until(24 * 20)
    assert escalations(world).count("visit-without-number") == 1


async def test_a_cancelled_visit_needs_no_number() -> None:
    world = await approved(Script(pend_hours=24 * 30))
    await book(world, "first", 6)
    await visit(world, "first", AppointmentCancelled, by=CancelledBy.PATIENT, reason="ill")
    await world.until(24 * 6)
    assert "visit-without-number" not in escalations(world)


async def test_a_service_that_needs_no_approval_needs_no_number() -> None:
    world = await approved(Script(decision=ReviewAction.NO_ACTION_REQUIRED))
    await book(world, "first", 2)
    await world.until(24 * 3)
    assert escalations(world) == []


# -- another payer, and care that was given ---------------------------------------------------------------------------


async def of_another_payer(world: World) -> None:
    """Intake tells that another payer covers Tess now."""
    coverage = PersonCoverage(coverage_id=uid("coverage", "new"), payer_id="other-health", member_id="N-1")
    await world.know("tess", None, coverage=coverage)
    await world.settle()


async def test_an_unused_approval_is_sought_anew_with_the_payer_who_covers_the_patient_now() -> None:
    world = await approved()
    await of_another_payer(world)
    await world.until(2)
    old = await world.of("tess")
    assert escalations(world) == ["coverage-changed"]
    new = await world.harness.stored(Authorization, old.transferred_to or "")
    assert new is not None
    assert (new.payer_id, new.replaces, new.state) == ("other-health", old.id, State.APPROVED)
    assert new.referral_id == old.referral_id
    assert new.continuity is not None
    assert old.current is not None
    assert (new.continuity.payer_id, new.continuity.number) == (old.payer_id, old.current.number)
    assert [case.payer_id for case in world.payer.ledger.authorizations] == [old.payer_id, "other-health"]
    await of_another_payer(world)
    await world.until(3)
    assert escalations(world) == ["coverage-changed"], "once for each coverage"


async def test_an_approval_in_use_is_left_to_a_person_when_the_payer_changes() -> None:
    world = await approved()
    await book(world, "first", 1)
    await visit(world, "first", AppointmentFulfilled)
    await of_another_payer(world)
    await world.until(2)
    assert escalations(world) == ["coverage-changed-in-use"]
    assert len(await world.harness.all(Authorization)) == 1


@pytest.mark.parametrize(("days", "status"), [(0, 201), (3, 201), (14, 201), (15, 409)])
async def test_care_that_was_given_is_asked_for_within_the_payers_window(days: int, status: int) -> None:
    world = World()
    given = (NOW - timedelta(days=days)).date().isoformat()
    code = {"system": "http://www.ama-assn.org/go/cpt", "code": "99244"}
    asked = {
        "patient_id": uid("patient", "tess"),
        "coverage_id": uid("coverage"),
        "payer_id": "acme-health",
        "items": [{"service": code, "starts": given}],
    }
    async with world.harness.client(Role.COORDINATOR) as client:
        answered = await client.post("/authorizations", json=asked, headers=world.harness.key())
    assert answered.status_code == status, answered.text
    if status == 201:
        (document,) = await world.harness.all(Authorization)
        assert document.retrospective is (days > 0)


# -- extension ------------------------------------------------------------------------------------------------------


async def test_an_approval_that_ends_before_a_visit_is_extended_in_time() -> None:
    world = await approved(Script(period_days=30))
    await book(world, "late", 40)
    ends = 30 - EXTEND_BEFORE.days
    await world.until(24 * (ends - 2))
    (case,) = world.payer.ledger.authorizations
    assert [claim.certification_type for claim in case.claims] == ["I"]
    world.payer.script("M-1", Script(period_days=90))
    await world.until(24 * (ends + 1))
    assert [claim.certification_type for claim in case.claims] == ["I", "4"]
    document = await world.of("tess")
    assert document.state is State.APPROVED
    assert document.submissions[-1].extends
    assert document.current is not None
    assert document.current.valid_to is not None
    assert document.current.valid_to > on_day(40).date()
    assert (await shown(world))["visits"][0]["cover"] == "covered"
    assert len(notices(world)) == 1, "told once it is covered"


@pytest.mark.parametrize("why", ["no-visit-after", "no-units-left", "cancelled"])
async def test_an_approval_that_no_visit_outlives_is_not_extended(why: str) -> None:
    world = await approved(Script(decision=ReviewAction.PARTIAL, units=1, period_days=30))
    await book(world, "first", 5)
    if why == "no-units-left":
        await visit(world, "first", AppointmentFulfilled)
        await book(world, "late", 40)
    if why == "cancelled":
        await book(world, "late", 40)
        await visit(world, "late", AppointmentCancelled, by=CancelledBy.PATIENT, reason="ill")
    await world.until(24 * 31)
    (case,) = world.payer.ledger.authorizations
    assert [claim.certification_type for claim in case.claims] == ["I"]


async def test_an_extension_that_is_refused_is_not_asked_for_again_and_a_person_is_called() -> None:
    world = await approved(Script(period_days=30))
    await book(world, "late", 40)
    world.payer.script("M-1", Script(period_days=10))
    await world.until(24 * 39)
    (case,) = world.payer.ledger.authorizations
    assert [claim.certification_type for claim in case.claims].count("4") <= 2
    assert escalations(world) == ["visit-outside-approval"]

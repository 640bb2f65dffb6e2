"""What a payer approved of a referral reaches its bookings: days, units and what was withheld; shown, and kept to."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import count
from typing import Any

import pytest

from services.scheduling.model.approval import Approval, Beyond, Grant
from services.scheduling.service import Settings, build
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import (
    AuthorizationApproved,
    AuthorizationCancelled,
    AuthorizationDenied,
    AuthorizationEvent,
    AuthorizationNotRequired,
    AuthorizationUnitsUsed,
    ItemDifference,
    ReviewAction,
)
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.fhir import parse
from shared.kit.testing.harness import Harness
from tests.unit.scheduling.test_api import TEN, get, hold, parameters, post, publish, refer, reference, shown
from tests.unit.scheduling.world import DOCTOR, patient, referral

FIRST, SECOND = derived_id("test", "authorization"), derived_id("test", "another authorization")
DAY = timedelta(days=1)
SEQUENCE = count(1)
WITHHELD = ItemDifference(
    sequence=2,
    action=ReviewAction.NOT_CERTIFIED,
    service=Coding(system="http://www.ama-assn.org/go/cpt", code="97110"),
    units_requested=6,
    units_granted=0,
    reasons=("0V",),
)


@pytest.fixture
async def scheduling() -> Harness:
    return await Harness(Settings, build).start()


async def tell(harness: Harness, kind: type[AuthorizationEvent], authorization: str = FIRST, **fields: Any) -> None:
    """Prior authorization tells of the first referral's authorization."""
    ids = {"authorization_id": authorization, "referral_id": referral(1), "patient_id": patient(1)}
    event = kind.model_validate({**ids, **fields})
    await harness.arrive(event, authorization, next(SEQUENCE), service="prior_authorization")
    await harness.settle()


async def grant(harness: Harness, authorization: str = FIRST, **fields: Any) -> None:
    granted = {"action": "A1", "number": "AUTH-1", "units_requested": 4, "units_granted": 4, **fields}
    await tell(harness, AuthorizationApproved, authorization, **granted)


async def taken(harness: Harness, slot: str, **more: object) -> Any:
    return await hold(harness, slot, referral_id=referral(1), **more)


# -- shown ------------------------------------------------------------------------------------------------------------


async def test_a_booking_shows_number_days_units_and_what_was_withheld(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    await grant(
        scheduling, action="A2", units_requested=10, valid_from=TEN.date(), valid_to=TEN.date(), differences=(WITHHELD,)
    )
    id = await refer(scheduling)
    approval = (await shown(scheduling, id))["approval"]
    assert approval == {
        "authorization_id": FIRST,
        "number": "AUTH-1",
        "valid_from": "2026-03-03",
        "valid_to": "2026-03-03",
        "units_requested": 10,
        "units_granted": 4,
        "units_used": 0,
        "differences": [WITHHELD.model_dump(mode="json")],
        "beyond": None,
        "booked_because": None,
    }
    (listed,) = (await get(scheduling, "/appointments", referral=referral(1)))["appointments"]
    assert listed["approval"] == approval
    resource = await get(scheduling, f"/fhir/Appointment/{id}")
    assert resource["supportingInformation"] == [{"reference": f"ClaimResponse/{FIRST}"}]
    parse(resource, "Appointment")


@pytest.mark.parametrize(
    ("told", "fields", "beyond"),
    [
        (AuthorizationApproved, {"valid_to": date(2026, 3, 2)}, "visit-outside-approval"),
        (AuthorizationApproved, {"units_granted": 0}, "visit-over-units"),
        (AuthorizationUnitsUsed, {"units_used": 4}, "visit-over-units"),
        (AuthorizationDenied, {"final": True}, "visit-without-approval"),
        (AuthorizationCancelled, {"reason": "payer"}, "visit-without-approval"),
    ],
)
async def test_a_booking_that_the_payer_no_longer_pays_for_stays_and_is_shown(
    scheduling: Harness, told: type[AuthorizationEvent], fields: dict[str, Any], beyond: str
) -> None:
    await publish(scheduling, TEN)
    await grant(scheduling)
    id = await refer(scheduling)
    assert (await shown(scheduling, id))["approval"]["beyond"] is None
    granted = {"action": "A6", "number": "AUTH-1", "units_requested": 4, "units_granted": 4}
    await tell(scheduling, told, **{**(granted if told is not AuthorizationDenied else {}), **fields})
    visit = await shown(scheduling, id)
    assert visit["state"] == "booked"
    assert visit["approval"]["beyond"] == beyond


async def test_what_needs_no_approval_after_all_is_bound_by_none(scheduling: Harness) -> None:
    (slot,) = await publish(scheduling, TEN)
    await grant(scheduling, units_granted=0)
    assert (await taken(scheduling, slot)).status_code == 409
    await tell(scheduling, AuthorizationNotRequired, rule="payer:NA")
    assert (await taken(scheduling, slot)).status_code == 201


# -- kept to ----------------------------------------------------------------------------------------------------------


async def test_no_slot_is_looked_for_outside_the_approved_days(scheduling: Harness) -> None:
    await publish(scheduling, TEN, TEN + 3 * DAY)
    await grant(scheduling, valid_from=(TEN + 2 * DAY).date())
    visit = await shown(scheduling, await refer(scheduling))
    assert visit["start"] == "2026-03-06T16:00:00.000Z"


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({"valid_to": (TEN - DAY).date()}, "visit-outside-approval"),
        ({"units_used": 4}, "visit-over-units"),
        ({"units_granted": 0}, "visit-over-units"),
    ],
)
async def test_a_slot_beyond_the_approval_is_refused_unless_a_person_says_why(
    scheduling: Harness, fields: dict[str, Any], how: str
) -> None:
    (slot,) = await publish(scheduling, TEN)
    await grant(scheduling, **fields)
    refused = await taken(scheduling, slot)
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("beyond-approval")
    assert how in refused.json()["detail"]
    allowed = await taken(scheduling, slot, beyond_approval="extension-expected")
    assert allowed.status_code == 201, allowed.text
    await scheduling.settle()
    visit = await shown(scheduling, allowed.json()["id"])
    assert visit["approval"]["beyond"] == how
    assert visit["approval"]["booked_because"] == "extension-expected"


async def test_a_visit_is_not_moved_beyond_the_approval_unless_a_person_says_why(scheduling: Harness) -> None:
    _, late = await publish(scheduling, TEN, TEN + 5 * DAY)
    await grant(scheduling, valid_to=(TEN + DAY).date(), units_granted=1)
    id = await refer(scheduling)
    refused = await post(scheduling, f"/appointments/{id}/reschedule", {"slot_id": late})
    assert refused.status_code == 409
    assert (await shown(scheduling, id))["start"] == "2026-03-03T16:00:00.000Z"
    key = scheduling.key()
    body = {"slot_id": late, "beyond_approval": "patient-pays"}
    assert (await post(scheduling, f"/appointments/{id}/reschedule", body, key=key)).status_code == 202
    await scheduling.settle()
    assert (await shown(scheduling, id))["start"] == "2026-03-08T16:00:00.000Z"


async def test_a_wish_for_a_chosen_slot_is_held_to_the_approval_and_its_repeat_is_answered_as_before(
    scheduling: Harness,
) -> None:
    near, late = await publish(scheduling, TEN, TEN + 5 * DAY)
    await grant(scheduling, valid_to=(TEN + DAY).date(), units_granted=1)
    body = {"patient_id": patient(1), "resource_id": DOCTOR, "referral_id": referral(1), "slot_id": late}
    assert (await post(scheduling, "/appointments", body)).status_code == 409
    key = scheduling.key()
    first = await post(scheduling, "/appointments", {**body, "slot_id": near}, key=key)
    assert first.status_code == 201, first.text
    await scheduling.settle()
    await tell(scheduling, AuthorizationUnitsUsed, number="AUTH-1", units_granted=1, units_used=1)
    again = await post(scheduling, "/appointments", {**body, "slot_id": near}, key=key)
    assert (again.status_code, again.json()) == (201, first.json())


async def test_another_referrals_bookings_know_nothing_of_it(scheduling: Harness) -> None:
    (slot,) = await publish(scheduling, TEN)
    await grant(scheduling, units_granted=0)
    other = await hold(scheduling, slot, 2, referral_id=referral(2))
    assert other.status_code == 201
    await scheduling.settle()
    assert (await shown(scheduling, other.json()["id"]))["approval"] is None


async def test_fhir_book_beyond_the_approval_is_an_outcome_that_says_so(scheduling: Harness) -> None:
    (slot,) = await publish(scheduling, TEN)
    await grant(scheduling, valid_to=(TEN - DAY).date())
    id = await refer(scheduling)
    assert (await shown(scheduling, id))["state"] == "waitlist", "the day is not paid for"
    await post(scheduling, f"/appointments/{id}/cancel", {}, Role.COORDINATOR)
    await scheduling.settle()
    order = reference(f"ServiceRequest/{referral(1)}")
    body = parameters(
        appointment=reference(f"Appointment/{slot}"), patient=reference(f"Patient/{patient(1)}"), referral=order
    )
    answer = await post(scheduling, "/fhir/Appointment/$book", body)
    assert answer.status_code == 409
    (issue,) = answer.json()["issue"]
    assert (issue["severity"], issue["code"]) == ("error", "business-rule")
    parse(answer.json(), "OperationOutcome")


# -- which of several -------------------------------------------------------------------------------------------------


def held(*grants: tuple[str, str | None, bool]) -> Approval:
    return Approval(
        id=referral(1),
        referral_id=referral(1),
        grants=[
            Grant(authorization_id=id, replaces=replaces, stands=stands, number=id, units_requested=1, units_granted=1)
            for id, replaces, stands in grants
        ],
    )


@pytest.mark.parametrize(
    ("grants", "standing"),
    [
        ([], None),
        ([(FIRST, None, True)], FIRST),
        ([(FIRST, None, False)], None),
        ([(FIRST, None, True), (SECOND, FIRST, True)], SECOND),
        ([(SECOND, FIRST, True), (FIRST, None, True)], SECOND),
        ([(SECOND, FIRST, False), (FIRST, None, True)], FIRST),
        ([(SECOND, FIRST, True), (FIRST, None, False)], SECOND),
    ],
)
def test_of_several_the_one_that_took_the_others_place_holds_whatever_was_told_last(
    grants: list[tuple[str, str | None, bool]], standing: str | None
) -> None:
    approval = held(*grants)
    found = approval.standing()
    assert (found.authorization_id if found else None) == standing
    lost = approval.beyond(TEN, "UTC") is Beyond.LOST
    assert lost is (bool(grants) and standing is None)


def test_the_day_of_a_visit_is_that_of_its_place() -> None:
    approval = held((FIRST, None, True))
    approval.grants[0].valid_to = date(2026, 3, 3)
    night = TEN + timedelta(hours=14)  # 6:00 UTC of the 4th, 23:00 of the 3rd in Denver
    assert approval.beyond(night, "America/Denver") is None
    assert approval.beyond(night, "UTC") is Beyond.DAYS

"""Scheduling as a whole: its HTTP and FHIR doors and its reactions over an in-memory store and bus."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.scheduling.model import appointment as visit
from services.scheduling.model.appointment import Appointment, AppointmentState
from services.scheduling.model.calendar import Calendar, SlotStatus, calendar_id
from services.scheduling.service import Settings, build
from shared.contracts.intake import Barrier, BarrierRecorded
from shared.contracts.notifications import ReplyIntent, ReplyReceived
from shared.contracts.referrals import ReferralCancelled
from shared.kit.api import undeclared
from shared.kit.auth import Role
from shared.kit.fhir import parse
from shared.kit.testing.harness import Harness
from tests.unit.scheduling.world import DOCTOR, accepted, patient, referral

TEN = datetime(2026, 3, 3, 16, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
HALF_HOUR = timedelta(minutes=30)


@pytest.fixture
async def scheduling() -> Harness:
    return await Harness(Settings, build).start()


def slot_body(*starts: datetime, zone: str = "America/Denver") -> dict[str, Any]:
    slots = [{"start": start.isoformat(), "end": (start + HALF_HOUR).isoformat()} for start in starts]
    return {"timezone": zone, "slots": slots}


async def post(
    harness: Harness, path: str, body: object = None, *roles: Role, key: dict[str, str] | None = None
) -> httpx.Response:
    async with harness.client(*(roles or (Role.SCHEDULER,))) as caller:
        return await caller.post(path, json=body, headers=key or harness.key())


async def get(harness: Harness, path: str, *roles: Role, **params: str) -> Any:
    async with harness.client(*(roles or (Role.SCHEDULER,))) as caller:
        answer = await caller.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def publish(harness: Harness, *starts: datetime) -> list[str]:
    """Publish half hours at these starts; their slot ids."""
    answer = await post(harness, f"/calendars/{DOCTOR}/slots", slot_body(*starts))
    assert answer.status_code == 201, answer.text
    await harness.settle()
    window = {"from": min(starts).isoformat(), "to": max(starts).isoformat()}
    found = (await get(harness, "/slots", resource=DOCTOR, **window))["slots"]
    by_start = {slot["start"]: slot["slot_id"] for slot in found}
    return [by_start[start.strftime("%Y-%m-%dT%H:%M:%S.000Z")] for start in starts]


async def hold(harness: Harness, slot_id: str, number: int = 1, **more: object) -> httpx.Response:
    return await post(harness, "/slots/hold", {"slot_id": slot_id, "patient_id": patient(number), **more})


async def refer(harness: Harness, number: int = 1) -> str:
    """A referral is accepted; the id of its appointment."""
    await harness.arrive(accepted(number), referral(number), 1, service="referrals")
    await harness.settle()
    return visit.appointment_id(referral(number))


async def shown(harness: Harness, id: str) -> dict[str, Any]:
    found: dict[str, Any] = await get(harness, f"/appointments/{id}")
    return found


# -- publishing and finding -------------------------------------------------------------------------------------------


async def test_slots_of_several_days_are_published_and_found_in_order(scheduling: Harness) -> None:
    starts = [TEN + timedelta(days=2), TEN, TEN + HOUR]
    answer = await post(scheduling, f"/calendars/{DOCTOR}/slots", slot_body(*starts))
    assert [each["day"] for each in answer.json()["calendars"]] == ["2026-03-03", "2026-03-05"]
    found = (await get(scheduling, "/slots", resource=DOCTOR))["slots"]
    assert [slot["start"] for slot in found] == [
        "2026-03-03T16:00:00.000Z",
        "2026-03-03T17:00:00.000Z",
        "2026-03-05T16:00:00.000Z",
    ]
    assert found[0]["local_start"] == "2026-03-03T09:00-07:00"


async def test_a_slot_is_shown_by_the_wall_clock_of_its_day_across_the_change_to_summer_time(
    scheduling: Harness,
) -> None:
    before, after = datetime(2026, 3, 7, 16, 0, tzinfo=UTC), datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
    await publish(scheduling, before, after)
    found = (await get(scheduling, "/slots", resource=DOCTOR))["slots"]
    assert [slot["local_start"] for slot in found] == ["2026-03-07T09:00-07:00", "2026-03-09T09:00-06:00"]


async def test_offsets_are_taken_to_utc_and_times_without_one_are_refused(scheduling: Harness) -> None:
    slot = {"start": "2026-03-03T09:00:00-07:00", "end": "2026-03-03T09:30:00-07:00"}
    body = {"timezone": "America/Denver", "slots": [slot]}
    assert (await post(scheduling, f"/calendars/{DOCTOR}/slots", body)).status_code == 201
    assert (await get(scheduling, "/slots", resource=DOCTOR))["slots"][0]["start"] == "2026-03-03T16:00:00.000Z"
    slot["start"] = "2026-03-03T09:00:00"
    refused = await post(scheduling, f"/calendars/{DOCTOR}/slots", body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"] == "slots[0].start"


async def test_one_bad_slot_refuses_all_days_and_names_each_flaw(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    body = slot_body(TEN + timedelta(days=1), TEN + timedelta(minutes=15), TEN + timedelta(hours=7, minutes=45))
    refused = await post(scheduling, f"/calendars/{DOCTOR}/slots", body)
    assert refused.status_code == 422
    assert [each["path"] for each in refused.json()["errors"]] == ["slots[2].end", "slots[1]"]
    assert len(await scheduling.all(Calendar)) == 1, "nothing of it was published"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"timezone": "America"}, "timezone"),
        ({"slots": []}, "slots"),
        ({"colour": "blue"}, "(unknown field)"),
        ({"slots": [{"start": TEN.isoformat(), "end": TEN.isoformat(), "status": "busy"}]}, "slots[0].status"),
    ],
)
async def test_a_publication_that_means_nothing_is_refused(
    scheduling: Harness, change: dict[str, Any], path: str
) -> None:
    refused = await post(scheduling, f"/calendars/{DOCTOR}/slots", slot_body(TEN) | change)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"] == path


async def test_publishing_again_under_the_same_key_is_answered_as_before_even_when_the_slots_are_past(
    scheduling: Harness,
) -> None:
    key = scheduling.key()
    first = await post(scheduling, f"/calendars/{DOCTOR}/slots", slot_body(TEN), key=key)
    scheduling.clock.advance_to(TEN + HOUR)
    again = await post(scheduling, f"/calendars/{DOCTOR}/slots", slot_body(TEN), key=key)
    assert (again.status_code, again.json()) == (201, first.json())


async def test_third_next_available_is_told_in_days(scheduling: Harness) -> None:
    await publish(scheduling, TEN, TEN + HOUR)
    found = await get(scheduling, f"/calendars/{DOCTOR}/third-next-available")
    assert (found["third_next_available"], found["days"]) == (None, None)
    await publish(scheduling, TEN + timedelta(days=2))
    found = await get(scheduling, f"/calendars/{DOCTOR}/third-next-available")
    assert found["third_next_available"] == "2026-03-05T16:00:00.000Z"
    assert found["days"] == round((TEN + timedelta(days=2) - scheduling.clock.now()) / timedelta(days=1), 2)


async def test_a_window_that_is_empty_or_too_long_is_refused(scheduling: Harness) -> None:
    async with scheduling.client(Role.SCHEDULER) as caller:
        for until in (TEN - HOUR, TEN + timedelta(days=94)):
            params = {"resource": DOCTOR, "from": TEN.isoformat(), "to": until.isoformat()}
            answer = await caller.get("/slots", params=params)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["path"] == "to"


async def test_a_blocked_slot_is_not_found_until_it_is_put_back(scheduling: Harness) -> None:
    (slot_id,) = await publish(scheduling, TEN)
    assert (await post(scheduling, f"/slots/{slot_id}/block")).status_code == 200
    assert (await get(scheduling, "/slots", resource=DOCTOR))["slots"] == []
    assert (await hold(scheduling, slot_id)).status_code == 409
    assert (await get(scheduling, f"/slots/{slot_id}"))["status"] == "busy-unavailable"
    await post(scheduling, f"/slots/{slot_id}/unblock")
    assert len((await get(scheduling, "/slots", resource=DOCTOR))["slots"]) == 1
    assert len((await get(scheduling, "/slots", resource=DOCTOR, any="true"))["slots"]) == 1


# -- hold and confirm -------------------------------------------------------------------------------------------------


async def test_of_many_who_want_one_slot_at_the_same_time_exactly_one_gets_it(scheduling: Harness) -> None:
    (slot_id,) = await publish(scheduling, TEN)
    ways = ["/slots/hold", "/slots/book"]
    answers = await asyncio.gather(
        *(
            post(scheduling, ways[number % 2], {"slot_id": slot_id, "patient_id": patient(number)})
            for number in range(30)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 29
    assert {answer.json()["type"] for answer in answers if answer.status_code == 409} == {
        "urn:carerelay:problem:slot-lost"
    }
    await scheduling.settle()
    assert len(await scheduling.all(Appointment)) == 1


async def test_requests_and_referrals_that_race_for_slots_never_share_one(scheduling: Harness) -> None:
    slots = await publish(scheduling, *(TEN + n * HALF_HOUR for n in range(6)))
    for number in range(1, 7):
        await scheduling.arrive(accepted(number), referral(number), 1)
    asks = [
        post(scheduling, "/slots/book", {"slot_id": id, "patient_id": patient(n)}) for n, id in enumerate(slots[:4])
    ]
    await asyncio.gather(scheduling.settle(), *asks)
    await scheduling.settle()
    booked = [each for each in await scheduling.all(Appointment) if each.state is AppointmentState.BOOKED]
    starts = [each.place.start for each in booked if each.place is not None]
    assert len(starts) == len(set(starts)) == 6


async def test_a_hold_is_confirmed_before_or_after_its_appointment_is_stored(scheduling: Harness) -> None:
    first, second = await publish(scheduling, TEN, TEN + HOUR)
    at_once = (await hold(scheduling, first)).json()
    assert (at_once["state"], at_once["held_until"]) == ("pending", "2026-03-02T15:10:00.000Z")
    answer = await post(scheduling, f"/appointments/{at_once['id']}/book")
    assert (answer.status_code, answer.json()["state"]) == (200, "booked")
    later = (await hold(scheduling, second, 2, minutes=30)).json()
    await scheduling.settle()
    assert (await shown(scheduling, later["id"]))["state"] == "pending"
    await post(scheduling, f"/appointments/{later['id']}/book")
    await scheduling.settle()
    for id in (at_once["id"], later["id"]):
        assert (await shown(scheduling, id))["state"] == "booked"


async def test_a_held_slot_is_not_offered_until_its_hold_ends(scheduling: Harness) -> None:
    (slot_id,) = await publish(scheduling, TEN)
    held = (await hold(scheduling, slot_id)).json()
    await scheduling.settle()
    assert (await get(scheduling, "/slots", resource=DOCTOR))["slots"] == []
    scheduling.clock.advance(timedelta(minutes=10))
    assert len((await get(scheduling, "/slots", resource=DOCTOR))["slots"]) == 1, "at once, before the timer is heard"
    await scheduling.settle()
    assert (await shown(scheduling, held["id"]))["end_reason"] == "hold-expired"
    late = await post(scheduling, f"/appointments/{held['id']}/book")
    assert (late.status_code, late.json()["type"]) == (409, "urn:carerelay:problem:hold-expired")


async def test_confirming_an_appointment_never_heard_of_is_not_found(scheduling: Harness) -> None:
    assert (await post(scheduling, f"/appointments/{patient(9)}/book")).status_code == 404
    assert (await hold(scheduling, patient(9))).status_code == 404


async def test_the_same_request_again_holds_nothing_more(scheduling: Harness) -> None:
    (slot_id,) = await publish(scheduling, TEN)
    key, body = scheduling.key(), {"slot_id": slot_id, "patient_id": patient()}
    first = await post(scheduling, "/slots/hold", body, key=key)
    again = await post(scheduling, "/slots/hold", body, key=key)
    assert (again.status_code, again.json()) == (201, first.json())
    other = await post(scheduling, "/slots/hold", body | {"patient_id": patient(2)}, key=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:carerelay:problem:idempotency-key-reused")


# -- appointments -----------------------------------------------------------------------------------------------------


async def test_a_referral_is_booked_seen_and_fulfilled(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    id = await refer(scheduling)
    found = (await get(scheduling, "/appointments", referral=referral()))["appointments"]
    assert [(each["id"], each["state"], each["start"]) for each in found] == [
        (id, "booked", "2026-03-03T16:00:00.000Z")
    ]
    early = await post(scheduling, f"/appointments/{id}/arrive", None, Role.CLINICIAN)
    assert (early.status_code, early.json()["type"]) == (409, "urn:carerelay:problem:too-early")
    scheduling.clock.advance_to(TEN)
    assert (await post(scheduling, f"/appointments/{id}/confirm")).status_code == 200
    assert (await post(scheduling, f"/appointments/{id}/arrive")).json()["state"] == "arrived"
    assert (await post(scheduling, f"/appointments/{id}/fulfil")).json()["state"] == "fulfilled"
    again = await post(scheduling, f"/appointments/{id}/no-show")
    assert (again.status_code, again.json()["type"]) == (409, "urn:carerelay:problem:illegal-transition")
    await scheduling.settle()
    types = [type for type, _ in scheduling.published("scheduling.events")]
    assert types == [
        "appointment.proposed.v1",
        "appointment.booked.v1",
        "appointment.confirmed.v1",
        "appointment.arrived.v1",
        "appointment.fulfilled.v1",
    ]


async def test_after_a_no_show_the_referral_is_booked_again_under_the_next_number(scheduling: Harness) -> None:
    await publish(scheduling, TEN, TEN + timedelta(days=7))
    first = await refer(scheduling)
    body = {"patient_id": patient(), "referral_id": referral(), "resource_id": DOCTOR}
    refused = await post(scheduling, "/appointments", body)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:carerelay:problem:appointment-exists")
    scheduling.clock.advance_to(TEN)
    await post(scheduling, f"/appointments/{first}/no-show")
    await scheduling.settle()
    keys = [scheduling.key() for _ in range(5)]
    answers = await asyncio.gather(*(post(scheduling, "/appointments", body, key=key) for key in keys))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 4, "two people at once book one visit"
    (won,) = [place for place, answer in enumerate(answers) if answer.status_code == 201]
    again = await post(scheduling, "/appointments", body, key=keys[won])
    assert (again.status_code, again.json()) == (201, answers[won].json())
    await scheduling.settle()
    second = visit.appointment_id(referral(), 2)
    assert answers[won].json()["id"] == second
    assert (await shown(scheduling, second))["start"] == "2026-03-10T16:00:00.000Z"


async def test_a_chosen_slot_is_asked_for_and_a_taken_one_refused(scheduling: Harness) -> None:
    first, second = await publish(scheduling, TEN, TEN + HOUR)
    body = {"patient_id": patient(), "resource_id": DOCTOR, "slot_id": second}
    id = (await post(scheduling, "/appointments", body)).json()["id"]
    await scheduling.settle()
    assert (await shown(scheduling, id))["slot_id"] == second
    refused = await post(scheduling, "/appointments", body | {"patient_id": patient(2)})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:carerelay:problem:slot-lost")
    moved = await post(scheduling, f"/appointments/{id}/reschedule", {"slot_id": first})
    assert moved.status_code == 202
    await scheduling.settle()
    now = await shown(scheduling, id)
    assert (now["slot_id"], now["occurrence"]) == (first, 2)
    calendar = await scheduling.stored(Calendar, calendar_id(DOCTOR, "2026-03-03"))
    assert calendar is not None
    assert [slot.status for slot in calendar.slots] == [SlotStatus.BUSY, SlotStatus.FREE]


async def test_who_waits_is_listed_with_deadline_and_owner_and_gets_the_slot_that_is_given_back(
    scheduling: Harness,
) -> None:
    await publish(scheduling, TEN)
    first, second = await refer(scheduling, 1), await refer(scheduling, 2)
    (waiting,) = (await get(scheduling, "/appointments", waiting_for=DOCTOR))["appointments"]
    assert (waiting["id"], waiting["state"], waiting["wait"]["owner"]) == (second, "waitlist", "scheduler")
    assert waiting["wait"]["deadline"] == "2026-03-09T15:00:00.000Z"
    cancelled = await post(scheduling, f"/appointments/{first}/cancel", {"by": "provider", "reason": "doctor-ill"})
    assert cancelled.json()["state"] == "cancelled"
    await scheduling.settle()
    await scheduling.advance()
    assert (await shown(scheduling, second))["state"] == "booked"


async def test_a_reason_is_a_code_and_never_text(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    id = await refer(scheduling)
    refused = await post(scheduling, f"/appointments/{id}/cancel", {"reason": "Ana Perez moved away"})
    assert refused.status_code == 422
    assert "Perez" not in refused.text


async def test_a_reply_and_a_cancelled_referral_each_free_the_slot(scheduling: Harness) -> None:
    await publish(scheduling, TEN, TEN + HOUR)
    first, second = await refer(scheduling, 1), await refer(scheduling, 2)
    reply = ReplyReceived(patient_id=patient(1), appointment_id=first, intent=ReplyIntent.CANCEL)
    await scheduling.arrive(reply, patient(1), 1, service="notifications")
    withdrawn = ReferralCancelled(referral_id=referral(2), patient_id=patient(2), reason="patient-request")
    await scheduling.arrive(withdrawn, referral(2), 2, service="referrals")
    await scheduling.settle()
    assert (await shown(scheduling, first))["ended_by"] == "patient"
    assert (await shown(scheduling, second))["ended_by"] == "referral"
    assert len((await get(scheduling, "/slots", resource=DOCTOR))["slots"]) == 2


async def test_a_referral_accepted_and_cancelled_in_one_batch_leaves_nothing_booked(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    await scheduling.arrive(accepted(), referral(), 1, service="referrals")
    withdrawn = ReferralCancelled(referral_id=referral(), patient_id=patient(), reason="patient-request")
    await scheduling.arrive(withdrawn, referral(), 2, service="referrals")
    await scheduling.settle()
    assert (await shown(scheduling, visit.appointment_id(referral())))["state"] == "cancelled"
    assert len((await get(scheduling, "/slots", resource=DOCTOR))["slots"]) == 1


async def test_what_the_visit_still_needs_is_shown(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    id = await refer(scheduling)
    assert (await shown(scheduling, id))["ready"] is True
    await scheduling.arrive(BarrierRecorded(patient_id=patient(), barrier=Barrier.INTERPRETER), patient(), 1)
    await scheduling.settle()
    found = await shown(scheduling, id)
    assert (found["ready"], found["needs"]) == (False, {"interpreter": "open"})


async def test_a_stale_version_is_refused(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    id = await refer(scheduling)
    async with scheduling.client(Role.SCHEDULER) as caller:
        headers = scheduling.key() | {"If-Match": '"1"'}
        answer = await caller.post(f"/appointments/{id}/cancel", json={}, headers=headers)
    assert answer.status_code == 412


async def test_who_may_do_what(scheduling: Harness) -> None:
    assert undeclared(scheduling.chassis.app) == []
    (slot_id,) = await publish(scheduling, TEN)
    body = {"slot_id": slot_id, "patient_id": patient()}
    for path, payload, role in (
        (f"/calendars/{DOCTOR}/slots", slot_body(TEN), Role.COORDINATOR),
        ("/slots/hold", body, Role.CLINICIAN),
        ("/slots/book", body, Role.AUDITOR),
        (f"/appointments/{patient()}/cancel", {}, Role.CLINICIAN),
        (f"/slots/{slot_id}/block", None, Role.COORDINATOR),
    ):
        assert (await post(scheduling, path, payload, role)).status_code == 403


async def test_nothing_asked_for_is_refused(scheduling: Harness) -> None:
    async with scheduling.client(Role.SCHEDULER) as caller:
        assert (await caller.get("/appointments")).status_code == 422
        assert (await caller.get("/appointments/not-a-uuid")).status_code == 422
        assert (await caller.get(f"/appointments/{patient()}")).status_code == 404


# -- FHIR -------------------------------------------------------------------------------------------------------------


def parameters(**given: dict[str, Any]) -> dict[str, Any]:
    parameter = [
        {"name": name.replace("appointment", "appointment-reference"), **value} for name, value in given.items()
    ]
    return {"resourceType": "Parameters", "parameter": parameter}


def reference(to: str) -> dict[str, Any]:
    return {"valueReference": {"reference": to}}


def find(count: int | None = None) -> dict[str, Any]:
    given = {
        "start": {"valueDateTime": TEN.isoformat()},
        "end": {"valueDateTime": (TEN + timedelta(days=1)).isoformat()},
        "practitioner": reference(f"Practitioner/{DOCTOR}"),
    }
    return parameters(**given, **({} if count is None else {"_count": {"valueInteger": count}}))


async def test_find_hold_and_book_as_ihe_has_them(scheduling: Harness) -> None:
    await publish(scheduling, TEN, TEN + HOUR)
    found = (await post(scheduling, "/fhir/Appointment/$find", find())).json()
    parse(found, "Bundle")
    potential = [entry["resource"] for entry in found["entry"]]
    assert (found["total"], [each["status"] for each in potential]) == (2, ["proposed", "proposed"])
    body = parameters(
        appointment=reference(f"Appointment/{potential[0]['id']}"), patient=reference(f"Patient/{patient()}")
    )
    answer = await post(scheduling, "/fhir/Appointment/$hold", body)
    held = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/fhir+json")
    parse(held, "Appointment")
    assert held["status"] == "pending"
    assert (await post(scheduling, "/fhir/Appointment/$find", find())).json()["total"] == 1, "what is held is not found"
    book = parameters(appointment=reference(f"Appointment/{held['id']}"))
    booked = (await post(scheduling, "/fhir/Appointment/$book", book)).json()
    parse(booked, "Appointment")
    assert (booked["id"], booked["status"]) == (held["id"], "booked")
    await scheduling.settle()
    stored = await get(scheduling, f"/fhir/Appointment/{held['id']}")
    parse(stored, "Appointment")
    assert (stored["status"], stored["start"]) == ("booked", potential[0]["start"])


async def test_book_takes_a_found_slot_without_a_hold_before_it(scheduling: Harness) -> None:
    (slot_id,) = await publish(scheduling, TEN)
    body = parameters(appointment=reference(f"Appointment/{slot_id}"), patient=reference(f"Patient/{patient()}"))
    booked = (await post(scheduling, "/fhir/Appointment/$book", body)).json()
    assert booked["status"] == "booked"
    await scheduling.settle()
    assert (await shown(scheduling, booked["id"]))["state"] == "booked"


async def test_find_shows_as_many_as_were_asked_for_and_tells_the_total(scheduling: Harness) -> None:
    await publish(scheduling, TEN, TEN + HOUR, TEN + 2 * HOUR)
    found = (await post(scheduling, "/fhir/Appointment/$find", find(count=1))).json()
    assert (len(found["entry"]), found["total"]) == (1, 3)
    none = (await post(scheduling, "/fhir/Appointment/$find", find(count=0))).json()
    parse(none, "Bundle")
    assert "entry" not in none


async def test_a_lost_slot_is_an_operation_outcome_fatal_and_not_found(scheduling: Harness) -> None:
    (slot_id,) = await publish(scheduling, TEN)
    body = parameters(appointment=reference(f"Appointment/{slot_id}"), patient=reference(f"Patient/{patient()}"))
    await post(scheduling, "/fhir/Appointment/$hold", body)
    lost = await post(scheduling, "/fhir/Appointment/$hold", body)
    parse(lost.json(), "OperationOutcome")
    assert (lost.status_code, lost.headers["content-type"]) == (409, "application/fhir+json")
    (issue,) = lost.json()["issue"]
    assert (issue["severity"], issue["code"]) == ("fatal", "not-found")


@pytest.mark.parametrize(
    ("operation", "body", "path"),
    [
        ("$find", parameters(), "Parameters.parameter.where(name='start')"),
        (
            "$hold",
            parameters(appointment=reference(f"Appointment/{DOCTOR}")),
            "Parameters.parameter.where(name='patient')",
        ),
        ("$book", parameters(appointment=reference("Slot/1")), "Parameters.parameter[0].valueReference.reference"),
        (
            "$book",
            parameters(appointment=reference("Appointment/1")),
            "Parameters.parameter[0].valueReference.reference",
        ),
        ("$hold", {"resourceType": "Patient"}, "Parameters.resourceType"),
    ],
)
async def test_parameters_that_are_missing_or_wrong_are_named(
    scheduling: Harness, operation: str, body: dict[str, Any], path: str
) -> None:
    refused = await post(scheduling, f"/fhir/Appointment/{operation}", body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"] == path


def bundle_of(*slots: dict[str, Any]) -> dict[str, Any]:
    entries = [
        {"resource": {"resourceType": "Slot", "schedule": {"reference": "Schedule/1"}, **slot}} for slot in slots
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


async def publish_fhir(harness: Harness, bundle: dict[str, Any]) -> httpx.Response:
    return await post(harness, f"/calendars/{DOCTOR}/fhir-slots?timezone=America/Denver", bundle)


async def test_fhir_slots_are_published_and_read_back(scheduling: Harness) -> None:
    first = {"status": "free", "start": "2026-03-03T09:00:00-07:00", "end": "2026-03-03T09:30:00-07:00"}
    closed = {"status": "busy-unavailable", "start": "2026-03-03T19:00:00Z", "end": "2026-03-03T20:00:00Z"}
    assert (await publish_fhir(scheduling, bundle_of(first, closed))).status_code == 201
    found = await get(scheduling, "/fhir/Slot", resource=DOCTOR)
    parse(found, "Bundle")
    assert [entry["resource"]["status"] for entry in found["entry"]] == ["free", "busy-unavailable"]
    assert found["entry"][0]["resource"]["start"] == "2026-03-03T16:00:00.000Z"


@pytest.mark.parametrize(
    ("slot", "path"),
    [
        ({"status": "busy", "start": "2026-03-03T16:00:00Z", "end": "2026-03-03T17:00:00Z"}, "status"),
        ({"status": "free", "start": "2026-03-03T16:00:00Z"}, "end"),
        ({"status": "free", "start": "soon", "end": "2026-03-03T17:00:00Z"}, "start"),
        ({"status": "free", "start": "2026-03-03T23:30:00Z", "end": "2026-03-04T00:30:00Z"}, "end"),
    ],
)
async def test_a_fhir_slot_that_cannot_be_published_is_named_by_its_place(
    scheduling: Harness, slot: dict[str, Any], path: str
) -> None:
    good = {"status": "free", "start": "2026-03-05T16:00:00Z", "end": "2026-03-05T17:00:00Z"}
    refused = await publish_fhir(scheduling, bundle_of(good, slot))
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"] == f"Bundle.entry[1].resource.{path}"
    assert await scheduling.all(Calendar) == []


async def test_slots_that_others_published_for_bulk_reading_are_taken(scheduling: Harness, cases: Path) -> None:
    lines = (cases / "scheduling" / "slots-2021-W09.ndjson.json").read_text(encoding="utf-8").splitlines()
    slots = [json.loads(line) for line in lines[:40]]
    for slot in slots:  # a calendar refuses the past, so they come five years later
        for name in ("start", "end"):
            slot[name] = slot[name].replace("2021-03", "2026-04")
    one_resource = [slot for slot in slots if slot["schedule"] == slots[0]["schedule"] and slot["status"] == "free"]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": slot} for slot in one_resource]}
    answer = await publish_fhir(scheduling, bundle)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("cancelled", "cancelled"),
        ("waitlist", "waitlist"),
        ("noshow", "noshow"),
        ("entered-in-error", "entered-in-error"),
    ],
)
async def test_every_end_is_a_valid_fhir_appointment(scheduling: Harness, state: str, status: str) -> None:
    if state != "waitlist":
        await publish(scheduling, TEN)
    id = await refer(scheduling)
    if state == "cancelled":
        await post(scheduling, f"/appointments/{id}/cancel", {"by": "patient", "reason": "well-again"})
    if state == "noshow":
        scheduling.clock.advance_to(TEN)
        await post(scheduling, f"/appointments/{id}/no-show")
    if state == "entered-in-error":
        await post(scheduling, f"/appointments/{id}/enter-in-error")
    await scheduling.settle()
    resource = await get(scheduling, f"/fhir/Appointment/{id}", Role.AUDITOR)
    parse(resource, "Appointment")
    assert resource["status"] == status
    assert ("cancelationReason" in resource) == (state == "cancelled")
    assert resource["basedOn"] == [{"reference": f"ServiceRequest/{referral()}"}]


async def test_replaying_every_topic_changes_no_document(scheduling: Harness) -> None:
    await publish(scheduling, TEN, TEN + HOUR, TEN + timedelta(days=1))
    first = await refer(scheduling, 1)
    await refer(scheduling, 2)
    (slot,) = list((await get(scheduling, "/slots", resource=DOCTOR))["slots"])
    await post(scheduling, f"/appointments/{first}/reschedule", {"slot_id": slot["slot_id"]})
    await scheduling.settle()
    await post(scheduling, f"/appointments/{first}/cancel", {})
    await scheduling.settle()
    kinds = (Calendar, Appointment)
    before = {each.id: each.model_dump() for kind in kinds for each in await scheduling.all(kind)}
    records = [record for partitions in scheduling.broker.topics.values() for log in partitions for record in log]
    for reactor in scheduling.chassis.reactors:
        await reactor.handle([record for record in records if record.topic in reactor.table.topics])
    await scheduling.settle()
    after = {each.id: each.model_dump() for kind in kinds for each in await scheduling.all(kind)}
    assert after == before

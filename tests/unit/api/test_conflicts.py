"""Requests that are well formed and come too late, twice, or against the state: each refused, nothing half-written."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import httpx
import pytest

from shared.contracts.base import Event
from shared.contracts.intake import BarrierRecorded, PersonChanged
from shared.contracts.referrals import AuthorizationRequested, ReferralAccepted, ReferralSent
from shared.contracts.scheduling import AppointmentBooked
from shared.contracts.snapshot import EXAMPLES
from shared.kit.document import derived_id
from shared.kit.testing.harness import Harness
from tests.contract.services import WIRING
from tests.unit.api.doors import BODIES, EVERY, QUERIES, WITH_BODY, Door, doors, harness, refused, stored

Json = dict[str, Any]

FED: dict[str, tuple[type[Event], ...]] = {
    "prior_authorization": (PersonChanged, AuthorizationRequested),
    "scheduling": (ReferralAccepted,),
    "notifications": (PersonChanged, AppointmentBooked),
    "directory": (PersonChanged, BarrierRecorded),
    "webhooks": (ReferralSent,),
}
"""What services hear of by events; the golden payloads make a document of each kind."""

HOMES: dict[tuple[str, str], str] = {
    ("intake", "/patients"): "patient",
    ("referrals", "/referrals"): "referral",
    ("referrals", "/specialists"): "specialist",
    ("referrals", "/fhir/ServiceRequest"): "referral",
    ("scheduling", "/appointments"): "appointment",
    ("directory", "/services"): "service",
    ("directory", "/handoffs"): "handoff",
    ("prior_authorization", "/authorizations"): "authorization",
    ("notifications", "/deliveries"): "delivery",
    ("webhooks", "/endpoints"): "endpoint",
}
"""Whose documents the routes below an address change."""

ELSEWHERE = {
    "scheduling POST /appointments/{appointment_id}/book": "is decided by the calendar that holds the slot",
    "scheduling POST /appointments/{appointment_id}/reschedule": "looks for the slot first",
}
"""Routes whose If-Match is not met by the document in the address, and why."""


async def ask(
    served: Harness,
    door: Door,
    *,
    body: Any = None,
    id: str | None = None,
    key: str | None = None,
    if_match: str | None = None,
) -> httpx.Response:
    """One request by somebody who may."""
    headers = {"Idempotency-Key": key or served.key()["Idempotency-Key"], "Content-Type": "application/json"}
    if if_match is not None:
        headers["If-Match"] = if_match
    places = {} if id is None else {door.places[0]: id}
    sent = door.body if body is None else body
    async with served.client(door.role, subject="payer-simulator") as client:
        url = door.url(**places) + QUERIES.get(str(door), "")
        content = None if sent is None else json.dumps(sent)
        return await client.request(door.method, url, content=content, headers=headers)


async def lived_in(service: str) -> Harness:
    """A service with a document of each kind, made by its own routes and by what it hears."""
    served = harness(service)
    await served.start()
    for event in FED.get(service, ()):
        payload = json.loads((EXAMPLES / f"{event.type}.json").read_text(encoding="utf-8"))["full"]
        await served.arrive(event.model_validate(payload), derived_id("lived-in", event.type), 1)
    await served.settle()
    for door in WITH_BODY:
        if door.service == service and door.method != "PATCH":
            await ask(served, door)
    await served.settle()
    return served


def documents(served: Harness, collection: str) -> list[str]:
    """The ids of one kind."""
    found = served.store.collections.get(collection)
    return [] if found is None else list(found.texts)


def home(door: Door) -> str | None:
    """The kind of document that a route changes, where its address names it."""
    if not door.places or door.method == "GET":
        return None
    return HOMES.get((door.service, door.path.split("/{")[0]))


CHANGING = [door for door in EVERY if home(door) is not None]


def test_every_route_that_changes_a_document_by_its_address_is_looked_at() -> None:
    left = {str(door) for door in EVERY if door.places and door.method != "GET"} - {str(door) for door in CHANGING}
    assert left == {
        "notifications POST /inbound/{channel}",
        "prior_authorization POST /payers/{payer_id}/notifications",
        "prior_authorization PUT /payers/{payer_id}/subscription",
        "scheduling POST /calendars/{resource_id}/fhir-slots",
        "scheduling POST /calendars/{resource_id}/slots",
        "scheduling POST /slots/{slot_id}/block",
        "scheduling POST /slots/{slot_id}/unblock",
    }


@pytest.mark.parametrize("service", WIRING)
async def test_a_stale_if_match_changes_nothing(service: str) -> None:
    served = await lived_in(service)
    before = stored(served.store)
    for door in CHANGING:
        if door.service != service or str(door) in ELSEWHERE:
            continue
        collection = home(door) or ""
        ids = documents(served, collection)
        assert ids, f"no {collection}"
        for stale in ('"999"', 'W/"999"', '"0"'):
            body = {**(door.body or {}), "id": ids[0]} if "id" in (door.body or {}) else None
            answer = await ask(served, door, id=ids[0], if_match=stale, body=body)
            assert answer.status_code == 412, f"{door}: {answer.status_code} {answer.text}"
            assert refused(answer)["type"] == "urn:carerelay:problem:stale"
    assert stored(served.store) == before


async def test_a_slots_calendar_is_matched_too() -> None:
    served = await lived_in("scheduling")
    (calendar,) = (served.store.collections["calendar"].get(id) for id in documents(served, "calendar"))
    slot = next(slot["slot_id"] for slot in calendar["slots"])
    before = stored(served.store)
    for door in doors("scheduling"):
        if door.path in {"/slots/{slot_id}/block", "/slots/{slot_id}/unblock"}:
            assert (await ask(served, door, id=slot, if_match='"999"')).status_code == 412
    assert stored(served.store) == before


@pytest.mark.parametrize("service", WIRING)
async def test_what_was_read_can_be_changed_under_its_etag_once(service: str) -> None:
    """The version that a reader is shown is the one that If-Match takes, and after a change it no longer is."""
    read, changing, body = {
        "intake": ("/patients/{id}", "PATCH /patients/{id}", {"gender": "male"}),
        "referrals": ("/referrals/{id}", "POST /referrals/{id}/cancel", {"reason": "patient-choice"}),
        "scheduling": ("/appointments/{appointment_id}", "POST /appointments/{appointment_id}/cancel", {}),
        "directory": ("/services/{id}", "POST /services/{id}/contacts", {"channel": "phone", "result": "reached"}),
        "prior_authorization": ("/authorizations/{id}", "POST /authorizations/{id}/cancel", {}),
        "notifications": ("/recipients/{id}", "", {}),
        "webhooks": ("/endpoints/{id}", "POST /endpoints/{id}/pause", None),
    }[service]
    served = await lived_in(service)
    by_name = {f"{door.method} {door.path}": door for door in doors(service)}
    kind = HOMES.get((service, read.split("/{")[0]), "recipient")
    id = documents(served, kind)[0]
    shown = await ask(served, by_name[f"GET {read}"], id=id, body=None)
    etag = shown.headers["ETag"]
    if not changing:
        assert etag == f'"{served.store.collections[kind].get(id)["version"]}"'
        return
    first = await ask(served, by_name[changing], id=id, body=body, if_match=etag)
    assert first.is_success, first.text
    assert first.headers["ETag"] != etag
    second = await ask(served, by_name[changing], id=id, body=body, if_match=etag)
    assert refused(second)["status"] == 412


# -- the same key ---------------------------------------------------------------------------------------------------

OTHERWISE: dict[str, Json] = {
    "directory POST /handoffs": {"language": "en"},
    "intake POST /registrations": {"timestamp": "2026-03-02T15:00:00Z"},
    "notifications POST /inbound/{channel}": {"body": "NO"},
    "referrals POST /referrals": {"quantity": 3},
    "referrals POST /fhir/ServiceRequest": {"priority": "urgent"},
    "scheduling POST /appointments": {"flexible": False},
    "webhooks POST /endpoints": {"event_types": ["referral.closed.v1"]},
}
"""How a second body under the same key differs from the first."""


@pytest.mark.parametrize("door", [door for door in WITH_BODY if str(door) in OTHERWISE], ids=str)
async def test_a_key_used_again_with_another_body_is_refused_and_with_the_same_answered_as_before(door: Door) -> None:
    served = harness(door.service)
    body = door.body or {}
    first = await ask(served, door, key="k-1", body=body)
    assert first.is_success, first.text
    await served.settle()
    before = stored(served.store)

    again = await ask(served, door, key="k-1", body=dict(reversed(body.items())))
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    other = await ask(served, door, key="k-1", body={**body, **OTHERWISE[str(door)]})

    assert other.status_code == 422, other.text
    assert refused(other)["type"] == "urn:carerelay:problem:idempotency-key-reused"
    assert stored(served.store) == before


@pytest.mark.parametrize("service", WIRING)
async def test_a_change_under_a_key_used_for_another_change_is_refused(service: str) -> None:
    changing, one, other = {
        "intake": ("PATCH /patients/{id}", {"gender": "male"}, {"gender": "female"}),
        "referrals": ("POST /referrals/{id}/cancel", {"reason": "one"}, {"reason": "other"}),
        "scheduling": ("POST /appointments/{appointment_id}/cancel", {"reason": "one"}, {"reason": "other"}),
        "directory": (
            "POST /services/{id}/contacts",
            {"channel": "phone", "result": "reached"},
            {"channel": "phone", "result": "no-answer"},
        ),
        "prior_authorization": ("POST /authorizations/{id}/cancel", {"reason": "one"}, {"reason": "other"}),
        "notifications": ("POST /callbacks/status", {"status": "delivered"}, {"status": "failed"}),
        "webhooks": ("POST /endpoints/{id}/rotate", {"overlap_hours": 1}, {"overlap_hours": 2}),
    }[service]
    served = await lived_in(service)
    door = next(door for door in doors(service) if f"{door.method} {door.path}" == changing)
    id = documents(served, home(door) or "delivery")[0]
    if service == "notifications":
        one, other = ({"id": "gw-1", "reference": id, **said} for said in (one, other))
    given = id if door.places else None
    first = await ask(served, door, id=given, body=one, key="k-1")
    if not first.is_success:
        assert service == "notifications", first.text  # Not sent yet: a report of it is refused, and keeps no key.
        return
    before = stored(served.store)
    assert refused(await ask(served, door, id=given, body=other, key="k-1"))["status"] == 422
    assert stored(served.store) == before


# -- against the state ----------------------------------------------------------------------------------------------

ENDINGS = {
    "intake": ("POST /patients/{id}/$entered-in-error", {}),
    "referrals": ("POST /referrals/{id}/cancel", {"reason": "patient-choice"}),
    "scheduling": ("POST /appointments/{appointment_id}/cancel", {"reason": "patient-choice"}),
    "directory": ("POST /handoffs/{id}/close", {"outcome": "cancelled"}),
    "prior_authorization": ("POST /authorizations/{id}/cancel", {"reason": "coordinator"}),
    "webhooks": ("POST /endpoints/{id}/remove", None),
}
AGAINST = {
    "intake": ["POST /patients/{id}/coverage/$verify", "PATCH /patients/{id}"],
    "referrals": ["POST /referrals/{id}/accept", "POST /referrals/{id}/reject", "POST /referrals/{id}/activate"],
    "scheduling": [
        "POST /appointments/{appointment_id}/confirm",
        "POST /appointments/{appointment_id}/arrive",
        "POST /appointments/{appointment_id}/fulfil",
        "POST /appointments/{appointment_id}/no-show",
    ],
    "directory": ["POST /handoffs/{id}/accept", "POST /handoffs/{id}/decline"],
    "prior_authorization": [
        "POST /authorizations/{id}/appeal",
        "POST /authorizations/{id}/accept-denial",
        "POST /authorizations/{id}/settle-contradiction",
    ],
    "webhooks": [f"POST /endpoints/{{id}}/{what}" for what in ("pause", "resume", "rotate", "replay", "remove")],
}


@pytest.mark.parametrize("service", ENDINGS)
async def test_an_illegal_transition_is_a_conflict_and_changes_nothing(service: str) -> None:
    served = await lived_in(service)
    by_name = {f"{door.method} {door.path}": door for door in doors(service)}
    ending, body = ENDINGS[service]
    id = documents(served, home(by_name[ending]) or "")[0]
    ended = await ask(served, by_name[ending], id=id, body=body)
    assert ended.is_success, ended.text
    await served.settle()
    before = stored(served.store)
    for name in AGAINST[service]:
        answer = await ask(served, by_name[name], id=id)
        assert answer.status_code == 409, f"{name}: {answer.status_code} {answer.text}"
        assert refused(answer)["detail"]
    assert stored(served.store) == before


async def test_the_outcome_of_a_message_that_nobody_doubts_is_not_to_be_found_out() -> None:
    served = await lived_in("notifications")
    door = next(door for door in doors("notifications") if door.path == "/deliveries/{id}/outcome")
    before = stored(served.store)
    for id in documents(served, "delivery"):
        assert refused(await ask(served, door, id=id))["status"] == 409
    assert stored(served.store) == before


@pytest.mark.parametrize("service", WIRING)
async def test_whatever_is_refused_in_any_state_leaves_everything_as_it_was(service: str) -> None:
    """Every route on every document, twice over: what is answered with a problem has written nothing."""
    served = await lived_in(service)
    for _ in range(2):
        for door in CHANGING:
            if door.service != service:
                continue
            for id in documents(served, home(door) or "")[:3]:
                before = stored(served.store)
                answer = await ask(served, door, id=id)
                assert answer.status_code < 500, f"{door}: {answer.text}"
                if answer.is_error:
                    refused(answer)
                    assert stored(served.store) == before, str(door)
        await served.settle()


# -- too large ------------------------------------------------------------------------------------------------------

SILENT = {"notifications POST /inbound/{channel}", "webhooks POST /endpoints"}
PUBLISHING = [door for door in WITH_BODY if str(door) in set(OTHERWISE) - SILENT]


@pytest.mark.parametrize("door", PUBLISHING, ids=str)
async def test_a_request_whose_event_is_too_large_to_publish_is_refused_whole(door: Door) -> None:
    served = harness(door.service, max_event_bytes=10)
    await served.start()
    before = stored(served.store)
    answer = await ask(served, door)
    assert refused(answer)["status"] == 413
    assert "larger than 10 bytes" in answer.json()["detail"]
    assert stored(served.store) == before
    await served.settle()
    assert served.published() == []


# -- what is not yet heard of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "name", "collection"),
    [
        ("referrals", "POST /referrals", "referral"),
        ("referrals", "POST /fhir/ServiceRequest", "referral"),
        ("referrals", "PUT /fhir/ServiceRequest/{id}", "referral"),
        ("scheduling", "POST /appointments", "appointment"),
        ("directory", "POST /handoffs", "handoff"),
    ],
)
async def test_a_well_formed_reference_to_what_is_not_yet_heard_of_is_accepted_and_waits_with_a_deadline(
    service: str, name: str, collection: str
) -> None:
    """It escalates once when nothing comes, and goes on waiting."""
    served = harness(service)
    door = next(door for door in doors(service) if f"{door.method} {door.path}" == name)
    answer = await ask(served, door)
    assert answer.status_code in {200, 201}, answer.text
    await served.settle()

    (id,) = documents(served, collection)
    waiting = served.store.collections[collection].get(id)
    deadline: datetime = waiting["wait"]["deadline"]
    assert deadline > served.clock.now()
    assert waiting["wait"]["owner"]
    assert waiting["wait"]["reason"]

    served.clock.pass_((deadline - served.clock.now()).total_seconds())
    await served.settle()
    await served.settle()
    escalated = [type for type, _ in served.published() if type.endswith(".escalated.v1")]
    assert len(escalated) == 1
    after = served.store.collections[collection].get(id)
    assert (after["state"], after["wait"]["escalated_at"]) == (waiting["state"], deadline)


@pytest.mark.parametrize("event", [AuthorizationRequested, AppointmentBooked], ids=lambda event: event.type)
async def test_an_event_about_somebody_not_yet_heard_of_is_accepted_and_waits_with_a_deadline(
    event: type[Event],
) -> None:
    service, collection = {
        AuthorizationRequested: ("prior_authorization", "authorization"),
        AppointmentBooked: ("notifications", "delivery"),
    }[event]
    served = harness(service)
    payload = json.loads((EXAMPLES / f"{event.type}.json").read_text(encoding="utf-8"))["full"]
    await served.arrive(event.model_validate(payload), derived_id("lived-in", event.type), 1)
    await served.settle()
    waiting = [served.store.collections[collection].get(id) for id in documents(served, collection)]
    assert waiting
    for document in waiting:
        assert document["due"] > served.clock.now()
    assert any(document["wait"] is not None for document in waiting)


def test_the_bodies_refer_to_nobody_who_is_there() -> None:
    """Each example stands alone, so that what waits above waits for something never heard of."""
    assert BODIES["referrals", "POST", "/referrals"]["patient_id"] == derived_id("example", "patient")

"""Directory as a whole: its API and its reactions over an in-memory store and bus."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.directory import hsds
from services.directory.model.handoff import HandOff, Person, Step, handoff_id
from services.directory.service import Settings, build
from shared.contracts.intake import Barrier, BarrierRecorded
from shared.kit.auth import Role
from shared.kit.testing.harness import Harness
from tests.unit.directory.cases import PATIENT, changed, record, uid

RIDE = handoff_id(PATIENT, Barrier.TRANSPORTATION)


@pytest.fixture
async def directory() -> Harness:
    return await Harness(Settings, build).start()


async def put(harness: Harness, body: dict[str, Any]) -> httpx.Response:
    async with harness.client(Role.DIRECTORY_EDITOR) as editor:
        return await editor.put(f"/services/{body['id']}", json=body)


async def search(harness: Harness, **params: str) -> dict[str, Any]:
    async with harness.client(Role.CLINICIAN) as reader:
        answer = await reader.get("/services", params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def act(harness: Harness, path: str, body: dict[str, Any] | None = None, *roles: Role) -> httpx.Response:
    async with harness.client(*(roles or (Role.COORDINATOR,))) as caller:
        answer = await caller.post(path, json=body, headers=harness.key())
    await harness.settle()
    return answer


async def need_a_ride(harness: Harness, *, person: bool = True) -> None:
    if person:
        await harness.arrive(changed(), PATIENT, 1, service="intake")
    await harness.arrive(BarrierRecorded(patient_id=PATIENT, barrier=Barrier.TRANSPORTATION), PATIENT, 2)
    await harness.settle()


async def ride(harness: Harness) -> HandOff:
    document = await harness.stored(HandOff, RIDE)
    assert document is not None
    return document


async def test_a_listed_service_is_read_back_as_it_was_put(directory: Harness) -> None:
    body = record("Rides", x_local={"vans": 3})
    assert (await put(directory, body)).status_code == 200
    async with directory.client(Role.CLINICIAN) as reader:
        answer = await reader.get(f"/services/{body['id']}")
    shown = answer.json()
    assert answer.headers["ETag"] == '"1"'
    assert {name: shown[name] for name in body} == body


async def test_the_root_tells_what_the_api_speaks(directory: Harness) -> None:
    async with directory.client(Role.AUDITOR) as reader:
        assert (await reader.get("/")).json()["version"] == "3.0"


async def test_filters_are_cumulative_and_pages_have_the_envelope(directory: Harness) -> None:
    for number in range(7):
        languages = ("en", "es") if number % 2 else ("en",)
        await put(directory, record(f"Ride {number}", languages=languages, areas=("60601" if number < 4 else "US-NY",)))
    await put(directory, record("Talk", terms=("interpreter",), languages=("es",)))
    assert (await search(directory))["total_items"] == 8
    assert (await search(directory, need="transportation"))["total_items"] == 7
    assert (await search(directory, need="transportation", language="es-MX"))["total_items"] == 3
    found = await search(directory, need="transportation", language="es", postcode="60601")
    assert sorted(one["name"] for one in found["contents"]) == ["Ride 1", "Ride 3"]
    assert (await search(directory, area="US-NY", search="ride 4"))["total_items"] == 3
    assert (await search(directory, search="helps talk"))["total_items"] == 1
    second = await search(directory, per_page="3", page="2", status="active")
    assert (second["total_pages"], second["size"], second["first_page"], second["last_page"]) == (3, 3, False, False)
    assert (await search(directory, page="9"))["empty"]
    minimal = await search(directory, minimal="true", per_page="1")
    assert set(minimal["contents"][0]) == {"id", "modified_date"}


async def test_a_listing_larger_than_one_reading_is_counted_whole(
    directory: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.directory.api.CHUNK", 2)
    for number in range(5):
        await put(directory, record(f"Ride {number}"))
    assert (await search(directory))["total_items"] == 5


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"page": "0"}, "page"),
        ({"per_page": "5000"}, "per_page"),
        ({"postcode": "somewhere"}, "postcode"),
        ({"area": "over the rainbow"}, "area"),
        ({"need": "money"}, "need"),
        ({"taxonomy_term_id": "7"}, "taxonomy_term_id"),
        ({"format": "ndjson"}, "format"),
    ],
)
async def test_a_search_that_cannot_be_done_is_refused_by_field(
    directory: Harness, params: dict[str, str], field: str
) -> None:
    async with directory.client(Role.CLINICIAN) as reader:
        answer = await reader.get("/services", params=params)
    assert answer.status_code == 422
    assert field in str(answer.json()["errors"])


async def test_only_editors_list_services(directory: Harness) -> None:
    body = record("Rides")
    async with directory.client(Role.COORDINATOR) as coordinator:
        assert (await coordinator.put(f"/services/{body['id']}", json=body)).status_code == 403
    async with directory.client(Role.DIRECTORY_EDITOR) as editor:
        assert (await editor.put("/services/42", json=body)).status_code == 422
        assert (await editor.put(f"/services/{body['id']}", json={**body, "status": "open"})).status_code == 422
        assert (await editor.put(f"/services/{body['id']}", content=b"{")).status_code in (400, 422)


async def test_a_stale_edit_is_refused(directory: Harness) -> None:
    body = record("Rides")
    await put(directory, body)
    async with directory.client(Role.DIRECTORY_EDITOR) as editor:
        fresh = {**body, "alert": "New number"}
        stale = await editor.put(f"/services/{body['id']}", json=fresh, headers={"If-Match": '"7"'})
        assert stale.status_code == 412
        assert (await editor.put(f"/services/{body['id']}", json=fresh, headers={"If-Match": '"1"'})).status_code == 200


async def test_a_recorded_barrier_leads_to_help(directory: Harness) -> None:
    body = record("Rides")
    await put(directory, body)
    await need_a_ride(directory)
    assert (await ride(directory)).offered_to == body["id"]
    accepted = await act(directory, f"/handoffs/{RIDE}/accept", {"service_id": body["id"]}, Role.SERVICE)
    assert accepted.json()["state"] == "accepted"
    assert (await act(directory, f"/handoffs/{RIDE}/close", {"outcome": "helped"})).status_code == 200
    assert (await act(directory, f"/handoffs/{RIDE}/close", {"outcome": "helped"})).status_code == 409
    told = sorted(type for type, _ in directory.published("directory.events") if type.startswith("handoff"))
    assert told == ["handoff.accepted.v1", "handoff.closed.v1", "handoff.offered.v1", "handoff.opened.v1"]


async def test_the_barrier_may_be_heard_of_before_the_person_and_before_any_service(directory: Harness) -> None:
    await need_a_ride(directory, person=False)
    assert (await ride(directory)).state is Step.OPENED
    await directory.arrive(changed(), PATIENT, 3, service="intake")
    await directory.settle()
    assert (await ride(directory)).state is Step.UNMATCHED
    body = record("Rides")
    await put(directory, body)
    await directory.settle()
    assert (await ride(directory)).offered_to == body["id"]


async def test_a_declined_offer_goes_on_to_the_next_service(directory: Harness) -> None:
    near, far = record("Near", areas=("60601",)), record("Far", areas=("US",))
    await put(directory, near)
    await put(directory, far)
    await need_a_ride(directory)
    for body in (near, far):
        answer = {"service_id": body["id"], "reason": "no-capacity"}
        assert (await act(directory, f"/handoffs/{RIDE}/decline", answer)).status_code == 200
    assert (await ride(directory)).state is Step.UNMATCHED
    offered = await act(directory, f"/handoffs/{RIDE}/offer", {"service_id": far["id"]})
    assert offered.json()["state"] == "offered"


async def test_a_service_taken_off_the_list_is_not_waited_for(directory: Harness) -> None:
    first, second = record("First", areas=("60601",)), record("Second", areas=("US",))
    await put(directory, first)
    await put(directory, second)
    await need_a_ride(directory)
    await put(directory, {**first, "status": "inactive"})
    await directory.settle()
    assert (await ride(directory)).offered_to == second["id"]


async def test_each_wait_escalates_once_when_time_passes(directory: Harness) -> None:
    await need_a_ride(directory)
    while await directory.advance():
        assert directory.clock.now() < await _opened(directory) + timedelta(days=400)
    escalated = [data for type, data in directory.published("directory.events") if type == "handoff.escalated.v1"]
    assert len(escalated) == 1
    assert (await ride(directory)).state is Step.UNMATCHED


async def _opened(harness: Harness) -> Any:
    wait = (await ride(harness)).wait
    assert wait is not None
    return wait.since


async def test_an_unverified_record_goes_stale_and_editors_find_it(directory: Harness) -> None:
    body = record("Rides")
    await put(directory, body)
    assert (await search(directory, stale="true"))["total_items"] == 0
    await directory.advance()
    assert (await search(directory, stale="true"))["total_items"] == 1
    await act(directory, f"/services/{body['id']}/verify", None, Role.DIRECTORY_EDITOR)
    assert (await search(directory, stale="true"))["total_items"] == 0
    call = {"channel": "phone", "result": "wrong-number"}
    assert (await act(directory, f"/services/{body['id']}/contacts", call)).status_code == 200
    async with directory.client(Role.COORDINATOR) as coordinator:
        log = (await coordinator.get(f"/services/{body['id']}/contacts")).json()
    assert (log["stale"], [entry["result"] for entry in log["contacts"]]) == (True, ["wrong-number"])


async def test_a_coordinator_opens_a_need_anew_and_lists_a_patients_hand_offs(directory: Harness) -> None:
    await need_a_ride(directory)
    again = {"patient_id": PATIENT, "barrier": "transportation"}
    assert (await act(directory, "/handoffs", again)).status_code == 409
    await act(directory, f"/handoffs/{RIDE}/close", {"outcome": "no-service"})
    opened = await act(directory, "/handoffs", again)
    assert opened.status_code == 201
    async with directory.client(Role.COORDINATOR) as coordinator:
        found = (await coordinator.get("/handoffs", params={"patient_id": PATIENT})).json()
        waiting = (await coordinator.get("/handoffs", params={"state": "unmatched"})).json()
    assert {one["state"] for one in found["items"]} == {"closed", "unmatched"}
    assert [one["id"] for one in waiting["items"]] == [opened.json()["id"]]


async def test_no_answer_and_no_event_tells_where_a_patient_lives(directory: Harness) -> None:
    await put(directory, record("Rides", areas=("US",)))
    await need_a_ride(directory)
    async with directory.client(Role.COORDINATOR) as coordinator:
        shown = (await coordinator.get(f"/handoffs/{RIDE}")).text
    events = str([data for type, data in directory.published() if not type.startswith("person.changed")])
    person = await directory.stored(Person, PATIENT)
    assert person is not None
    for secret in (person.postal_code, person.city):
        assert secret
        assert secret not in shown
        assert secret not in events


async def test_replaying_all_events_changes_nothing(directory: Harness) -> None:
    await put(directory, record("Rides"))
    await need_a_ride(directory)
    before = await ride(directory)
    await directory.arrive(changed(), PATIENT, 1, service="intake")
    await directory.arrive(BarrierRecorded(patient_id=PATIENT, barrier=Barrier.TRANSPORTATION), PATIENT, 2)
    await directory.settle()
    assert await ride(directory) == before


async def test_the_specifications_examples_are_listed_and_shown(directory: Harness, cases: Path) -> None:
    for body in hsds.records((cases / "hsds" / "examples" / "service_full.json").read_text()):
        assert (await put(directory, body)).status_code == 200
    found = await search(directory, language="ur")
    expected = hsds.records((cases / "hsds" / "examples" / "service_list.json").read_text())[0]
    assert set(found["contents"][0]) == set(expected)


async def test_what_is_not_there_is_not_found(directory: Harness) -> None:
    async with directory.client(Role.COORDINATOR) as coordinator:
        for path in (f"/services/{uid('none')}", f"/handoffs/{uid('none')}"):
            answer = await coordinator.get(path)
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")

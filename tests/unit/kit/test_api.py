"""The HTTP door: what it refuses and how it says so, idempotency keys, versions, bounded work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shared.kit.api import Call, DocumentId, Gate, Reply, Routes, undeclared
from shared.kit.auth import Role
from shared.kit.commands import KEPT_FOR, KEPT_REQUESTS
from shared.kit.decisions import Facts
from shared.kit.document import derived_id
from shared.kit.errors import Busy, Conflict
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.port import StoreUnavailable, Write
from shared.kit.testing.harness import Harness
from tests.unit.kit import toy
from tests.unit.kit.toy import Box, OpenBox

CANARY = "Synthea-Canary"
ABSENT = "00000000-0000-4000-8000-000000000000"
BODY_LIMIT = 2_000
JSON = {"Content-Type": "application/json"}


def fhir_routes() -> Routes:
    """A resource that is answered in FHIR, one that fails, and one that is refused."""
    made = Routes("/fhir")

    def open_it(box: Box | None, command: str, facts: Facts, now: Any) -> Box:
        return Box(id=command)

    @made.post("/Basic", roles={Role.CLINICIAN}, status=201)
    async def create(call: Call) -> Reply:
        id = call.new_id("basic")
        return await call.create(Box, id, id, open_it, answer=lambda box: {"resourceType": "Basic", "id": box.id})

    @made.get("/failing", roles={Role.CLINICIAN})
    async def failing(call: Call) -> Reply:
        raise RuntimeError(CANARY)

    @made.get("/refusing", roles={Role.CLINICIAN})
    async def refusing(call: Call) -> Reply:
        raise Conflict("the slot went to somebody else")

    @made.get("/unavailable", roles={Role.CLINICIAN})
    async def unavailable(call: Call) -> Reply:
        raise StoreUnavailable(CANARY)

    @made.put("/{box_id}", roles={Role.CLINICIAN})
    async def put(box_id: DocumentId, body: OpenBox, call: Call) -> Reply:
        return await call.put(Box, box_id, (box_id, body), toy.open_box)

    return made


def build(settings: KitSettings, http: httpx.AsyncClient) -> Service:
    made = toy.build(settings, http)
    return Service(made.name, made.documents, made.reactions, made.jobs, (*made.routes, fhir_routes()))


@pytest.fixture
async def kit() -> Harness:
    return await Harness(KitSettings, build, max_body_bytes=BODY_LIMIT, max_requests=3).start()


@pytest.fixture
async def clerk(kit: Harness) -> AsyncIterator[httpx.AsyncClient]:
    async with kit.client(Role.COORDINATOR, Role.CLINICIAN) as client:
        yield client


def is_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem details of an answer (RFC 9457), which hold nothing of what was sent."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"urn:carerelay:problem:{slug}"
    assert body["title"]
    assert CANARY not in answer.text
    assert "Traceback" not in answer.text
    return body


def paths(body: dict[str, Any]) -> set[str]:
    return {error["path"] for error in body["errors"]}


async def open_box(clerk: httpx.AsyncClient, key: str = "open", **body: Any) -> httpx.Response:
    return await clerk.post("/boxes", json={"owner": "ann", **body}, headers={"Idempotency-Key": key})


# -- who may ------------------------------------------------------------------------------------------------


async def test_without_a_token_nothing_is_told_but_health(kit: Harness) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=kit.chassis.app), base_url="http://service.test"
    ) as nobody:
        answer = await nobody.get(f"/boxes/{ABSENT}")
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        is_problem(await nobody.post("/boxes", content=b"{"), 401, "unauthenticated")
        is_problem(await nobody.get("/pulse"), 401, "unauthenticated")
        is_problem(await nobody.get("/openapi.json"), 401, "unauthenticated")
        assert (await nobody.get("/health/live")).status_code == 200
        assert (await nobody.get("/health/ready")).status_code == 200


async def test_a_process_that_meets_a_document_of_a_newer_shape_is_not_ready_from_then_on(
    kit: Harness, clerk: httpx.AsyncClient
) -> None:
    opened = (await open_box(clerk)).json()
    newer = {"version": opened["version"] + 1, "shape": Box.shape_known + 1}
    await kit.store.write(Box.collection, [Write(opened["id"], opened["version"], newer)])
    assert (await clerk.get("/health/ready")).status_code == 200

    is_problem(await clerk.get(f"/boxes/{opened['id']}"), 503, "unavailable")

    ready = await clerk.get("/health/ready")
    assert (ready.status_code, ready.json()["missing"]) == (503, ["release"])


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.COORDINATOR}))
async def test_another_role_is_refused_before_anything_is_looked_at(kit: Harness, role: Role) -> None:
    async with kit.client(role) as client:
        is_problem(await client.post("/boxes", content=b"{" + CANARY.encode()), 403, "forbidden")
    assert await kit.all(Box) == []


async def test_a_token_without_roles_reaches_nothing(kit: Harness) -> None:
    async with kit.client() as client:
        is_problem(await client.get(f"/boxes/{ABSENT}"), 403, "forbidden")


async def test_every_route_declares_its_roles(kit: Harness) -> None:
    assert undeclared(kit.chassis.app) == []


async def test_a_route_that_declares_none_is_seen(kit: Harness) -> None:
    app = FastAPI(openapi_url=None)
    routes = Routes("/open")

    @routes.router.get("/door")
    async def door() -> dict[str, str]:
        return {}

    @app.get("/bare")
    async def bare() -> dict[str, str]:
        return {}

    app.include_router(routes.router)

    assert sorted(undeclared(app)) == ["/bare", "/open/door"]


def test_a_route_cannot_be_declared_for_nobody() -> None:
    with pytest.raises(ValueError, match="declares no roles"):
        Routes().get("/x", roles=())


# -- what is wrong with a request ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status", "path"),
    [
        (b"{" + CANARY.encode(), 422, "body"),
        (b"", 422, "body"),
        (b"[]", 422, "body"),
        (b'{"owner": 1}', 422, "owner"),
        (b"{}", 422, "owner"),
        (b'{"owner": "x", "limit_days": "Synthea-Canary"}', 422, "limit_days"),
        (b'{"owner": "x", "Synthea-Canary": 1}', 422, "(unknown field)"),
        (b'{"owner": {"Synthea-Canary": ["Synthea-Canary"]}}', 422, "owner"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_naming_the_field_and_no_value(
    clerk: httpx.AsyncClient, content: bytes, status: int, path: str
) -> None:
    answer = await clerk.post("/boxes", content=content, headers={**JSON, "Idempotency-Key": "k"})

    assert path in paths(is_problem(answer, status, "invalid"))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe" + CANARY.encode(), b"[" * 1900, b"9" * 1900, b'"' + b"\\ud800" * 10 + b'"']
)
async def test_a_body_that_is_no_sane_json_is_refused(clerk: httpx.AsyncClient, content: bytes) -> None:
    answer = await clerk.post("/boxes", content=content, headers={**JSON, "Idempotency-Key": "k"})

    assert answer.status_code in {400, 422}
    is_problem(answer, answer.status_code, "malformed" if answer.status_code == 400 else "invalid")


async def test_nesting_beyond_what_can_be_read_is_refused(kit: Harness) -> None:
    deep = await Harness(KitSettings, build).start()
    async with deep.client(Role.COORDINATOR) as client:
        answer = await client.post("/boxes", content=b"[" * 200_000, headers={**JSON, "Idempotency-Key": "k"})
    assert answer.status_code in {400, 422}


async def test_half_a_character_is_refused_and_not_half_stored(kit: Harness, clerk: httpx.AsyncClient) -> None:
    answer = await clerk.post(
        "/boxes",
        content=b'{"owner": "\\ud800"}',
        headers={**JSON, "Idempotency-Key": "k"},
    )

    assert answer.status_code in {413, 422}
    assert await kit.all(Box) == []


@pytest.mark.parametrize("id", ["not-a-uuid", "1", CANARY, f"{ABSENT}0", f"{ABSENT}%00"])
async def test_an_ill_formed_reference_is_refused_naming_it(clerk: httpx.AsyncClient, id: str) -> None:
    assert paths(is_problem(await clerk.get(f"/boxes/{id}"), 422, "invalid")) == {"box_id"}


async def test_an_ill_formed_reference_in_a_body_is_refused_naming_it(clerk: httpx.AsyncClient) -> None:
    box = (await open_box(clerk)).json()["id"]

    answer = await clerk.post(f"/boxes/{box}/letters", json={"letter": CANARY}, headers={"Idempotency-Key": "k"})

    assert paths(is_problem(answer, 422, "invalid")) == {"letter"}


async def test_what_is_not_there_is_not_found(clerk: httpx.AsyncClient) -> None:
    is_problem(await clerk.get(f"/boxes/{ABSENT}"), 404, "not-found")
    answer = await clerk.post(f"/boxes/{ABSENT}/letters", json={"letter": ABSENT}, headers={"Idempotency-Key": "k"})
    is_problem(answer, 404, "not-found")
    is_problem(await clerk.get(f"/{CANARY}"), 404, "not-found")


async def test_a_method_that_a_route_has_not_is_refused_as_such(clerk: httpx.AsyncClient) -> None:
    is_problem(await clerk.delete(f"/boxes/{ABSENT}"), 405, "malformed")


async def test_an_illegal_transition_is_refused_by_its_name(clerk: httpx.AsyncClient) -> None:
    box = (await open_box(clerk)).json()["id"]
    assert (await clerk.post(f"/boxes/{box}/close", headers={"Idempotency-Key": "1"})).status_code == 200

    answer = await clerk.post(f"/boxes/{box}/close", headers={"Idempotency-Key": "2"})

    detail = is_problem(answer, 409, "illegal-transition")["detail"]
    assert detail == "Box in state closed cannot become closed"


async def test_a_refusal_of_the_domain_keeps_its_status_and_name(clerk: httpx.AsyncClient) -> None:
    is_problem(await clerk.get("/fhir/refusing"), 409, "conflict")


async def test_a_failure_of_ours_shows_nothing_of_itself(clerk: httpx.AsyncClient) -> None:
    is_problem(await clerk.get("/fhir/failing"), 500, "failure")


async def test_a_store_that_does_not_answer_is_told_as_unavailable(clerk: httpx.AsyncClient) -> None:
    is_problem(await clerk.get("/fhir/unavailable"), 503, "unavailable")


# -- bodies too large -----------------------------------------------------------------------------------------


async def test_a_body_that_says_it_is_too_large_is_refused_unread(clerk: httpx.AsyncClient) -> None:
    answer = await open_box(clerk, owner="x" * BODY_LIMIT)

    is_problem(answer, 413, "too-large")


async def test_a_body_that_turns_out_too_large_is_refused_as_it_comes(kit: Harness, clerk: httpx.AsyncClient) -> None:
    sent = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 500
            yield b" " * 500

    answer = await clerk.post("/boxes", content=stream(), headers={**JSON, "Idempotency-Key": "k"})

    is_problem(answer, 413, "too-large")
    assert sent < 1000 * 500


async def test_a_body_at_the_limit_is_taken(clerk: httpx.AsyncClient) -> None:
    content = json.dumps({"owner": "x" * (BODY_LIMIT - len(json.dumps({"owner": ""})))}).encode()
    assert len(content) == BODY_LIMIT

    assert (await clerk.post("/boxes", content=content, headers={**JSON, "Idempotency-Key": "k"})).status_code == 201


# -- idempotency keys -----------------------------------------------------------------------------------------


async def test_every_post_needs_a_key(kit: Harness, clerk: httpx.AsyncClient) -> None:
    answer = await clerk.post("/boxes", json={"owner": "ann"})

    assert paths(is_problem(answer, 400, "malformed")) == {"Idempotency-Key"}
    assert await kit.all(Box) == []


@pytest.mark.parametrize("key", ["", " ", "with space", "x" * 256, "ümlaut"])
async def test_a_key_that_is_not_visible_text_is_refused(clerk: httpx.AsyncClient, key: str) -> None:
    answer = await clerk.post("/boxes", json={"owner": "ann"}, headers=[(b"Idempotency-Key", key.encode())])

    assert paths(is_problem(answer, 400, "malformed")) == {"Idempotency-Key"}


async def test_a_repeated_request_is_answered_as_before_and_changes_nothing(
    kit: Harness, clerk: httpx.AsyncClient
) -> None:
    first = await open_box(clerk)
    box = first.json()["id"]
    put = {"json": {"letter": ABSENT}, "headers": {"Idempotency-Key": "put"}}
    changed = await clerk.post(f"/boxes/{box}/letters", **put)
    await clerk.post(f"/boxes/{box}/letters", json={"letter": ABSENT}, headers={"Idempotency-Key": "other"})

    again, changed_again = await open_box(clerk), await clerk.post(f"/boxes/{box}/letters", **put)

    assert (again.status_code, again.json(), again.headers["ETag"]) == (201, first.json(), first.headers["ETag"])
    assert (changed_again.status_code, changed_again.json()) == (200, changed.json())
    assert changed_again.headers["ETag"] == changed.headers["ETag"] == '"2"'
    assert again.headers["Idempotency-Replayed"] == changed_again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len((await kit.all(Box))[0].letters) == 2


async def test_a_key_is_one_requests_whatever_document_the_body_names(kit: Harness, clerk: httpx.AsyncClient) -> None:
    first, second = await open_box(clerk, "1"), await open_box(clerk, "2")
    closed = await clerk.post(f"/boxes/{first.json()['id']}/close", headers={"Idempotency-Key": "close"})
    before = await kit.all(Box)

    answer = await clerk.post(f"/boxes/{second.json()['id']}/close", headers={"Idempotency-Key": "close"})

    assert closed.status_code == 200
    is_problem(answer, 422, "idempotency-key-reused")
    assert await kit.all(Box) == before


async def test_a_refused_request_may_be_mended_under_its_key(clerk: httpx.AsyncClient) -> None:
    refused = await open_box(clerk, limit_days="many")

    assert refused.status_code == 422
    assert (await open_box(clerk, limit_days=4)).status_code == 201


async def test_a_repeat_in_other_spelling_is_the_same_request(clerk: httpx.AsyncClient) -> None:
    first = await open_box(clerk, limit_days=4)

    again = await clerk.post(
        "/boxes", content=b'{ "limit_days":4,\n"owner":"ann"}', headers={**JSON, "Idempotency-Key": "open"}
    )

    assert again.json() == first.json()


async def test_a_key_used_for_another_request_is_refused(kit: Harness, clerk: httpx.AsyncClient) -> None:
    box = (await open_box(clerk)).json()["id"]

    is_problem(await open_box(clerk, owner=CANARY), 422, "idempotency-key-reused")
    await clerk.post(f"/boxes/{box}/letters", json={"letter": ABSENT}, headers={"Idempotency-Key": "put"})
    answer = await clerk.post(f"/boxes/{box}/close", headers={"Idempotency-Key": "put"})

    is_problem(answer, 422, "idempotency-key-reused")
    assert (await kit.all(Box))[0].state == "open"


async def test_another_callers_same_key_is_another_key(kit: Harness, clerk: httpx.AsyncClient) -> None:
    async with kit.client(Role.COORDINATOR, subject="somebody else") as other:
        ids = {(await open_box(client)).json()["id"] for client in (clerk, other)}

    assert len(ids) == 2


async def test_repeats_sent_at_once_create_one_document(kit: Harness, clerk: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(open_box(clerk) for _ in range(3)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    (box,) = await kit.all(Box)
    assert (box.version, box.sequence) == (1, 1)


async def test_a_request_whose_answer_was_lost_is_found_done_under_its_key(kit: Harness) -> None:
    failing = iter([False, True])  # the key's claim is written, and the answer to the box's own write is lost

    async def lose(name: str) -> None:
        if name == "store.written" and next(failing, False):
            raise StoreUnavailable("lost")

    kit.chassis.repository.store = kit.store.seen_by(lose)
    async with kit.client(Role.COORDINATOR) as clerk:
        is_problem(await open_box(clerk), 503, "unavailable")
        again = await open_box(clerk)

    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert [box.sequence for box in await kit.all(Box)] == [1]


async def test_answers_are_kept_for_a_day_even_when_crowded_and_not_for_ever(
    kit: Harness, clerk: httpx.AsyncClient
) -> None:
    box = (await open_box(clerk)).json()["id"]

    async def put(key: str) -> httpx.Response:
        headers = {"Idempotency-Key": key}
        return await clerk.post(f"/boxes/{box}/letters", json={"letter": ABSENT}, headers=headers)

    for number in range(KEPT_REQUESTS + 5):
        assert (await put(f"k{number}")).status_code == 200
    assert (await put("k0")).headers["Idempotency-Replayed"] == "true"

    kit.clock.pass_(KEPT_FOR.total_seconds() + 1)
    await put("late")

    assert len((await kit.all(Box))[0].requests) == KEPT_REQUESTS


async def test_a_fhir_answer_holds_nothing_but_the_resource_and_keeps_its_version_as_the_etag(
    clerk: httpx.AsyncClient,
) -> None:
    first, again = [await clerk.post("/fhir/Basic", headers={"Idempotency-Key": "f"}) for _ in range(2)]

    assert first.json() == again.json() == {"resourceType": "Basic", "id": derived_id("basic", "tester", "f")}
    assert first.headers["ETag"] == again.headers["ETag"] == '"1"'


# -- versions -------------------------------------------------------------------------------------------------


async def test_answers_carry_the_version_as_etag(clerk: httpx.AsyncClient) -> None:
    created = await open_box(clerk)
    assert created.json() == {"id": created.json()["id"], "state": "open", "version": 1}
    assert created.headers["ETag"] == '"1"'

    read = await clerk.get(f"/boxes/{created.json()['id']}")
    assert read.headers["ETag"] == '"1"'


async def test_a_put_without_a_key_tells_its_version_too(clerk: httpx.AsyncClient) -> None:
    answer = await clerk.put(f"/fhir/{ABSENT}", json={"owner": "ann"})

    assert answer.json() == {"id": ABSENT, "state": "open", "version": 1}


async def test_a_change_on_a_version_that_has_passed_is_refused(kit: Harness, clerk: httpx.AsyncClient) -> None:
    box = (await open_box(clerk)).json()["id"]

    async def put(key: str, if_match: str) -> httpx.Response:
        headers = {"Idempotency-Key": key, "If-Match": if_match}
        return await clerk.post(f"/boxes/{box}/letters", json={"letter": ABSENT}, headers=headers)

    assert (await put("1", '"1"')).headers["ETag"] == '"2"'
    is_problem(await put("2", '"1"'), 412, "stale")
    is_problem(await put("2", 'W/"7"'), 412, "stale")
    assert (await put("2", 'W/"2"')).status_code == 200
    assert (await put("3", "*")).status_code == 200
    assert (await put("1", '"1"')).headers["Idempotency-Replayed"] == "true", "a repeat is a repeat first"
    assert len((await kit.all(Box))[0].letters) == 3


@pytest.mark.parametrize("header", ["1", '"x"', '"1", "2"', CANARY])
async def test_an_if_match_that_is_not_ours_is_refused(clerk: httpx.AsyncClient, header: str) -> None:
    box = (await open_box(clerk)).json()["id"]

    answer = await clerk.post(f"/boxes/{box}/close", headers={"Idempotency-Key": "k", "If-Match": header})

    assert paths(is_problem(answer, 400, "malformed")) == {"If-Match"}


async def test_the_loser_of_a_race_is_decided_again(kit: Harness) -> None:
    raced = 0

    async def be_first(name: str) -> None:
        nonlocal raced
        if name == "store.write" and raced == 1:
            raced = 2
            (box,) = await kit.all(Box)
            await kit.store.write("box", [Write(box.id, 1, {"version": 2, "letters": ["first"]})])

    kit.chassis.repository.store = kit.store.seen_by(be_first)
    async with kit.client(Role.COORDINATOR) as clerk:
        box = (await open_box(clerk)).json()["id"]
        raced = 1
        answer = await clerk.post(f"/boxes/{box}/letters", json={"letter": ABSENT}, headers={"Idempotency-Key": "k"})

    assert answer.json()["version"] == 3
    assert (await kit.all(Box))[0].letters == ["first", ABSENT]


# -- overload -------------------------------------------------------------------------------------------------


async def test_one_request_too_many_is_refused_with_a_time_to_come_back(kit: Harness) -> None:
    inside, leave = asyncio.Semaphore(0), asyncio.Event()

    async def hold(name: str) -> None:
        if name == "store.load":
            inside.release()
            await leave.wait()

    kit.chassis.repository.store = kit.store.seen_by(hold)
    async with kit.client(Role.COORDINATOR) as clerk:
        held = [asyncio.ensure_future(clerk.get(f"/boxes/{ABSENT}")) for _ in range(3)]
        for _ in held:
            await asyncio.wait_for(inside.acquire(), 5)

        refused = await clerk.get(f"/boxes/{ABSENT}")
        is_problem(refused, 429, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await clerk.get("/health/live")).status_code == 200, "health is asked in a storm too"

        leave.set()
        assert {answer.status_code for answer in await asyncio.gather(*held)} == {404}
        assert (await clerk.get(f"/boxes/{ABSENT}")).status_code == 404


def test_a_gate_counts_those_that_left_through_an_error() -> None:
    gate = Gate(1)

    def fail_inside() -> Iterator[None]:
        with gate:
            raise RuntimeError
        yield

    for _ in range(3):
        with pytest.raises(RuntimeError):
            next(fail_inside())
    with gate, pytest.raises(Busy), gate:
        pass
    assert gate.in_work == 0


# -- reading --------------------------------------------------------------------------------------------------


async def test_who_read_what_is_on_record(kit: Harness, clerk: httpx.AsyncClient) -> None:
    box = (await open_box(clerk)).json()["id"]
    async with kit.client(Role.AUDITOR, subject="auditor-1") as auditor:
        assert (await auditor.get(f"/boxes/{box}")).status_code == 200
        await auditor.get(f"/boxes/{ABSENT}")

    (entry,) = await kit.store.find("audit", {"caller": "auditor-1"})
    assert (entry["document"], entry["ids"], entry["roles"]) == ("Box", [box], ["auditor"])


async def test_the_trace_of_a_request_goes_back_with_its_answer(clerk: httpx.AsyncClient) -> None:
    mine = f"00-{1:032x}-{2:016x}-01"

    assert (await clerk.get(f"/boxes/{ABSENT}", headers={"traceparent": mine})).headers["traceparent"] == mine


@pytest.mark.parametrize("made_up", [CANARY, f"{CANARY}-00", f"00-{0:032x}-{0:016x}-00", "00-1-2-00", ""])
async def test_a_made_up_trace_is_not_taken_over(kit: Harness, clerk: httpx.AsyncClient, made_up: str) -> None:
    answer = await clerk.post("/boxes", json={"owner": "ann"}, headers={"Idempotency-Key": "k", "traceparent": made_up})

    assert answer.status_code == 201
    assert "traceparent" not in answer.headers
    assert (await kit.all(Box))[0].trace is None

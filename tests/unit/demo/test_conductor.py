"""Domain time stands while anything is in flight, and moves to what is due next when nothing is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.demo import traces
from deploy.demo.api import Api, NoAnswer, Refusal
from deploy.demo.conductor import ONE_EACH, SERVICES, TOGETHER, Conductor, Restless
from shared.kit.clock import FrozenClock

NOW = datetime(2026, 6, 1, 14, tzinfo=UTC)
FAR = NOW + timedelta(days=100)


def quiet(**changed: Any) -> dict[str, Any]:
    pulse = {
        "busy": 0,
        "unsent": 0,
        "next_due": None,
        "published": {"t.events:0": 3},
        "consumed": {"g": {"t.events:0": 3}},
    }
    return pulse | changed


def conductor(*pulses: dict[str, Any], outside: str | None = None) -> Conductor:
    """Sees these pulses of intake, one a look, the last for ever; all else is quiet."""
    seen = list(pulses)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/next-due":
            return httpx.Response(200, json={"at": outside})
        if request.url.host != SERVICES[0]:
            return httpx.Response(200, json=quiet())
        return httpx.Response(200, json=seen.pop(0) if len(seen) > 1 else seen[0])

    urls = {name: f"http://{name}" for name in (*SERVICES, "payer", "gateway")}
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Conductor(Api(urls, lambda role: role, http), FrozenClock(NOW), patience=0.3, look_every=0.005)


async def test_all_is_quiet_when_nothing_is_in_flight_on_two_looks() -> None:
    due = NOW + timedelta(hours=1)
    assert await conductor(quiet(next_due=due.isoformat())).settle() == due


@pytest.mark.parametrize(
    ("pulse", "why"),
    [
        (quiet(busy=1), "intake works"),
        (quiet(unsent=2), "intake works"),
        (quiet(next_due=NOW.isoformat()), "intake is due"),
        (quiet(consumed={"g": {"t.events:0": 2}}), "g has 1 to read"),
        (quiet(published={"t.events:0": 3, "t.events:1": 4}), "g has 4 to read"),
    ],
)
async def test_whatever_is_in_flight_keeps_time_from_moving(pulse: dict[str, Any], why: str) -> None:
    with pytest.raises(Restless, match=why):
        await conductor(pulse).settle()
    assert await conductor(pulse, pulse, quiet()).settle() is None


def half(part: int, read: int) -> dict[str, Any]:
    """One of two members of a group: each reads one of two partitions, to which three events were written."""
    return quiet(published={f"u.events:{part}": 3}, consumed={"h": {f"u.events:{part}": read}})


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (quiet(), quiet(), None),
        (quiet(), quiet(busy=1), "intake works"),
        (half(0, 3), half(1, 3), None),
        (half(0, 3), half(1, 2), "h has 1 to read"),
        (half(0, 1), half(0, 3), None),
    ],
)
async def test_a_service_of_several_processes_is_as_quiet_as_all_of_them(
    first: dict[str, Any], second: dict[str, Any], why: str | None
) -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/next-due":
            return httpx.Response(200, json={"at": None})
        if request.url.host.startswith("intake"):
            asked.append((request.url.host, request.url.params["stored"]))
        told = {"intake": first, "intake-jobs": second}
        return httpx.Response(200, json=told.get(request.url.host, quiet()))

    processes = {**ONE_EACH, "intake": ("intake", "intake-jobs")}
    urls = {name: f"http://{name}" for name in (*SERVICES, "intake-jobs", "payer", "gateway")}
    api = Api(urls, lambda role: role, httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    one = Conductor(api, FrozenClock(NOW), patience=0.3, look_every=0.005, processes=processes)
    if why is None:
        assert await one.settle() is None
        assert ("intake", "true") in asked, "one of them looks into the store that they share"
    else:
        with pytest.raises(Restless, match=why):
            await one.settle()
    assert ("intake-jobs", "true") not in asked


async def test_work_outside_that_is_due_is_waited_for() -> None:
    with pytest.raises(Restless, match="payer is due"):
        await conductor(quiet(), outside=NOW.isoformat()).settle()


async def test_time_moves_to_what_is_due_next_and_what_is_due_with_it() -> None:
    one = conductor(quiet())
    assert one.advance(NOW + timedelta(hours=2), [], FAR)
    assert one.now() == NOW + timedelta(hours=2) + TOGETHER


async def test_time_stops_where_somebody_waits_for_it() -> None:
    one = conductor(quiet())
    wish = NOW + timedelta(hours=1)
    assert one.advance(NOW + timedelta(hours=2), [wish, FAR], FAR)
    assert one.now() == wish
    assert one.advance(wish + timedelta(minutes=5), [wish + timedelta(minutes=7)], FAR)
    assert one.now() == wish + timedelta(minutes=7)


async def test_time_does_not_move_past_the_end_of_the_story() -> None:
    one = conductor(quiet())
    assert not one.advance(None, [], FAR)
    assert not one.advance(FAR + timedelta(days=1), [], FAR)
    assert one.now() == NOW


async def test_a_request_is_made_again_under_its_key_until_it_is_answered() -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ConnectError("restarting", request=request)
        return httpx.Response(503) if len(keys) == 2 else httpx.Response(201, json={"id": "1"})

    api = Api({"intake": "http://intake"}, lambda role: role, httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    assert await api.post("intake", "/registrations", "coordinator", "key-1", {}) == {"id": "1"}
    assert keys == ["key-1"] * 3


async def test_the_requests_of_one_case_belong_to_one_trace() -> None:
    parents: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        parents.append(request.headers.get("traceparent"))
        return httpx.Response(200, json={})

    api = Api({"intake": "http://intake"}, lambda role: role, httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    case = api.within("0af7651916cd43dd8448eb211c80319c")
    await case.post("intake", "/registrations", "coordinator", "key-1", {})
    await case.get("intake", "/patients", "coordinator")
    await api.get("intake", "/patients", "coordinator")
    assert parents == ["00-0af7651916cd43dd8448eb211c80319c-0af7651916cd43dd-01"] * 2 + [None]


async def test_who_never_answers_is_given_up_and_who_refuses_is_heard() -> None:
    problem = {"title": "No", "errors": [{"path": "Patient.birthDate", "reason": "is not a date"}]}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if request.url.path == "/gone" else httpx.Response(422, json=problem)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    api = Api({"intake": "http://intake"}, lambda role: role, http, patience=0.1)
    with pytest.raises(NoAnswer):
        await api.get("intake", "/gone", "coordinator")
    with pytest.raises(Refusal) as refused:
        await api.get("intake", "/here", "coordinator")
    assert [(flaw.path, flaw.reason) for flaw in refused.value.flaws] == [("Patient.birthDate", "is not a date")]


def span(id: str, parent: str | None, service: str, name: str, start: int, **attributes: str) -> dict[str, Any]:
    return {
        "trace_id": "t1", "span_id": id, "parent_id": parent, "name": name, "kind": "internal", "service": service,
        "start": start, "end": start + 2_000_000, "attributes": attributes, "links": [], "error": False,
    }  # fmt: skip


def test_a_trace_is_read_as_a_tree_across_services(tmp_path: Path) -> None:
    lines = [
        span("a", None, "referrals", "POST /referrals", 1),
        span("b", "a", "prior_authorization", "authorization", 2, **{"carerelay.referral.id": "r1"}),
        span("c", "b", "referrals", "read", 3),
        span("d", "b", "referrals", "read", 4),
        {**span("e", None, "intake", "other", 1), "trace_id": "t2"},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + '\n{"half')
    found = traces.of_case(traces.read(tmp_path), "r1")
    assert traces.services(found) == ["prior_authorization", "referrals"]
    (root,) = traces.tree(found)
    assert (root.id, [child.id for child in root.children]) == ("a", ["b"])
    assert [(child.id, child.times) for child in root.children[0].children] == [("c", 2)]
    assert root.milliseconds == 2.0
    assert traces.of_case(traces.read(tmp_path), "r2") == []

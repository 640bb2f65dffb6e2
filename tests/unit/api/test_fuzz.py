"""Any JSON to any route: an answer below 500, problem details where it is refused, and then nothing written."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.kit.testing.harness import Harness
from tests.contract.services import WIRING
from tests.unit.api.doors import QUERIES, WITH_BODY, Door, harness, refused, stored

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**31, max_value=2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "",
            " ",
            "\x00",
            "\ud800",
            "$where",
            "a.b",
            "🦜",
            "2026-02-30",
            "9999-12-31T23:59:59-23:59",
            "0001-01-01",
            "Z" * 999,
        ]
    )
)
NAMES = st.text(max_size=8) | st.sampled_from(
    ["id", "_id", "resourceType", "$set", "a.b", "__proto__", "\ud800", "version"]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value, the inner ones too."""
    found = [path] if path else []
    if isinstance(value, dict):
        found += [place for key, item in value.items() for place in places(item, (*path, key))]
    if isinstance(value, list):
        found += [place for at, item in enumerate(value) for place in places(item, (*path, at))]
    return found


def put(value: Any, path: tuple[str | int, ...], what: Any) -> None:
    """Something else in one place."""
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = what


@st.composite
def bodies(draw: st.DrawFn, door: Door) -> Any:
    """Mostly a body that fits but for one to three places; sometimes any JSON at all."""
    if draw(st.integers(0, 4)) == 0:
        return draw(VALUES)
    body = door.body
    for place in draw(st.lists(st.sampled_from(places(body) or [("x",)]), min_size=1, max_size=3, unique=True)):
        try:
            put(body, place, draw(VALUES))
        except (KeyError, IndexError, TypeError):
            continue  # An earlier change took this place away.
    return body


@cache
def runner() -> asyncio.Runner:
    """One loop for all examples."""
    return asyncio.Runner()


async def ask(served: Harness, door: Door, body: Any, key: str) -> httpx.Response:
    async with served.client(door.role, subject="payer-simulator") as client:
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        return await client.request(
            door.method, door.url() + QUERIES.get(str(door), ""), content=json.dumps(body), headers=headers
        )


@pytest.mark.parametrize("service", WIRING)
@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_json_is_too_strange(service: str, data: st.DataObject) -> None:
    served = harness(service)
    door = data.draw(st.sampled_from([door for door in WITH_BODY if door.service == service]))
    body = data.draw(bodies(door))
    before = stored(served.store)
    answer = runner().run(ask(served, door, body, "k-1"))
    assert answer.status_code < 500, f"{door}: {answer.text}"
    if answer.is_error:
        refused(answer)
        assert stored(served.store) == before
        return
    runner().run(served.settle())
    assert runner().run(served.chassis.pulse())["parked"] == 0

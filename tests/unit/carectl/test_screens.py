"""Traces from Jaeger and from files, cut into episodes; and what screens make of times and numbers."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from rich.console import Console

from deploy.carectl import screens
from deploy.carectl.client import Unreachable
from deploy.carectl.spans import episodes, from_jaeger
from deploy.demo.traces import Span

SECOND = 1_000_000_000
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def span(id: str, start: float, length: float = 0.1, parent: str | None = None, **more: Any) -> Span:
    fields = {"name": f"do {id}", "service": "referrals", "error": False, "attributes": {}, **more}
    return Span(id, parent, "t", start=int(start * SECOND), end=int((start + length) * SECOND), **fields)


def test_what_waited_for_days_is_another_episode() -> None:
    days = 3 * 86400.0
    found = episodes([span("c", days, 1.0, "b"), span("a", 0, 5), span("b", 1, 1, "a")])
    assert [(each.count, [root.id for root in each.roots]) for each in found] == [(2, ["a"]), (1, ["c"])]
    assert [child.id for child in found[0].roots[0].children] == ["b"]
    assert found[1].start - found[0].end == int((days - 5) * SECOND)


def test_a_waterfall_shows_each_span_at_its_place_and_how_long_nothing_happened() -> None:
    found = episodes([span("a", 0, 4), span("b", 2, 2, "a", error=True), span("c", 7204, 1, "b")])
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(screens.waterfall("trace t", found, console))
    lines = console.export_text().splitlines()
    assert "3 spans in 2 episodes" in lines[0]
    (whole,), (half,) = ([line for line in lines if f"do {name} " in line] for name in "ab")
    assert whole.index("█") < half.index("█")
    assert whole.count("█") == 2 * half.count("█")
    assert any("2 h later" in line for line in lines)


async def jaeger(status: int, body: Any) -> list[Span]:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    async with httpx.AsyncClient(transport=transport) as http:
        return await from_jaeger("http://jaeger.test/", "abc", http)


async def test_a_trace_is_read_from_jaegers_query_service() -> None:
    one = {
        "traceID": "abc",
        "spanID": "1",
        "operationName": "POST /referrals",
        "references": [],
        "startTime": 1_000_000,
        "duration": 2_000,
        "processID": "p1",
        "tags": [{"key": "carerelay.referral_id", "type": "string", "value": "r"}],
    }
    two = {
        **one,
        "spanID": "2",
        "references": [{"refType": "FOLLOWS_FROM", "spanID": "9"}, {"refType": "CHILD_OF", "spanID": "1"}],
        "tags": [{"key": "error", "type": "bool", "value": True}],
    }
    body = {"data": [{"spans": [one, two], "processes": {"p1": {"serviceName": "referrals"}}}]}
    first, second = await jaeger(200, body)
    assert (first.service, first.name, first.milliseconds, first.parent) == ("referrals", "POST /referrals", 2.0, None)
    assert first.attributes == {"carerelay.referral_id": "r"}
    assert (second.parent, second.error) == ("1", True)
    assert await jaeger(404, {"errors": [{"code": 404}]}) == []
    with pytest.raises(Unreachable, match="status 500"):
        await jaeger(500, {})


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_time_is_told_with_its_zone_or_as_so_long_ago(text: str, at: datetime) -> None:
    assert screens.ago(text, NOW) == at


@pytest.mark.parametrize("text", ["", "h", "yesterday", "2026-03-01T12:00:00", "-2h", "1.5h"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"zone|isoformat"):
        screens.ago(text, NOW)


def test_numbers_are_shown_as_somebody_would_say_them() -> None:
    assert [screens.lasting(n) for n in (None, 0, 1.25, 59, 600, 8000, 400000)] == [
        "?",
        "0 s",
        "1.2 s",
        "59 s",
        "10 min",
        "2 h",
        "5 d",
    ]
    assert screens.ranges([7, 0, 1, 2, 9]) == "0-2, 7, 9"
    assert screens.ranges(range(0, 40, 2)) == "0, 2, 4, 6, 8, 10 and 14 more"

"""Outside calls are told honestly: answered, certainly not taken, or nobody knows."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from shared.kit.decisions import Refused, Unanswered
from shared.kit.outside import ask

URL = "https://payer.test/claims"
Answer = Callable[[httpx.Request], httpx.Response]


async def asked(answer: Answer, **options: object) -> httpx.Response | Refused | Unanswered:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        return await ask(http, "POST", URL, **options)  # type: ignore[arg-type]


def raising(kind: type[httpx.HTTPError]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        raise kind("Synthea-Canary")

    return answer


def saying(status: int, **headers: str) -> Answer:
    return lambda request: httpx.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize("status", [200, 201, 202, 304, 400, 401, 404, 409, 422])
async def test_what_the_other_side_says_is_an_answer(status: int) -> None:
    answer = await asked(saying(status))

    assert isinstance(answer, httpx.Response)
    assert answer.status_code == status


@pytest.mark.parametrize("status", [429, 503])
async def test_too_busy_means_not_taken(status: int) -> None:
    assert await asked(saying(status, Retry_After="7")) == Refused(f"status-{status}", 7.0)


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_failure_over_there_means_that_nobody_knows(status: int) -> None:
    assert await asked(saying(status)) == Unanswered(f"status-{status}")


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_who_could_not_be_reached_took_nothing(kind: type[httpx.HTTPError]) -> None:
    assert await asked(raising(kind)) == Refused(kind.__name__)


@pytest.mark.parametrize(
    "kind", [httpx.ReadTimeout, httpx.WriteTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError]
)
async def test_a_call_that_broke_on_the_way_may_have_been_taken(kind: type[httpx.HTTPError]) -> None:
    assert await asked(raising(kind)) == Unanswered(kind.__name__)


async def test_the_attempt_is_the_idempotency_key_and_other_headers_go_along() -> None:
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200)

    await asked(answer, attempt="attempt-1", headers={"X-Reference": "r"}, json={})
    await asked(answer)

    assert (seen[0]["Idempotency-Key"], seen[0]["X-Reference"]) == ("attempt-1", "r")
    assert "Idempotency-Key" not in seen[1]


@pytest.mark.parametrize(
    ("after", "date", "seconds"),
    [
        ("0", None, 0.0),
        (" 120 ", None, 120.0),
        ("Mon, 02 Mar 2026 15:01:00 GMT", "Mon, 02 Mar 2026 15:00:00 GMT", 60.0),
        ("Mon, 02 Mar 2026 15:01:00 -0000", "Mon, 02 Mar 2026 15:00:00 GMT", 60.0),
        ("Mon, 02 Mar 2026 14:00:00 GMT", "Mon, 02 Mar 2026 15:00:00 GMT", 0.0),
        ("Mon, 02 Mar 2020 14:00:00 GMT", None, 0.0),
        ("Mon, 02 Mar 2020 14:00:00 GMT", "yesterday", 0.0),
        ("soon", None, None),
        ("-5", None, None),
        ("", None, None),
    ],
)
async def test_when_to_come_back_is_told_in_seconds(after: str, date: str | None, seconds: float | None) -> None:
    headers = {"Retry_After": after} | ({"Date": date} if date else {})

    assert await asked(saying(503, **headers)) == Refused("status-503", seconds)

"""Outside calls are told honestly: answered, certainly not taken, or nobody knows."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from deploy.embedded.ports import free_ports
from shared.kit.decisions import Refused, Unanswered
from shared.kit.outside import ask, client

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


# -- on the wire ----------------------------------------------------------------------------------------------


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """A server that talks as the test says; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/claims"


async def heard(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
    return head + await reader.readexactly(length)


async def test_an_exchange_goes_out_and_comes_back_as_it_is() -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            requests.append(await heard(reader))
            body = gzip.compress(b'{"id": "taken"}')
            head = f"HTTP/1.1 202 X\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\nX-One: 1\r\n\r\n"
            writer.write(head.encode() + body)

    async with listening(talk) as url, client() as http:
        answers = [await ask(http, "POST", url, attempt="a1", json={"n": n}) for n in range(2)]

    for answer in answers:
        assert isinstance(answer, httpx.Response)
        assert (answer.status_code, answer.json(), answer.headers["x-one"]) == (202, {"id": "taken"}, "1")
    assert [request.lower().count(b"idempotency-key: a1") for request in requests] == [1, 1]
    assert [request.rpartition(b"\r\n\r\n")[2] for request in requests] == [b'{"n":0}', b'{"n":1}']


async def test_a_port_that_nobody_listens_at_took_nothing() -> None:
    (port,) = free_ports(1)
    async with client() as http:
        assert await ask(http, "POST", f"http://127.0.0.1:{port}/", json={}) == Refused("ConnectError")


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"nonsense\r\n\r\n"]
)
async def test_a_connection_that_breaks_behind_the_request_means_that_nobody_knows(said: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        writer.write(said)

    async with listening(talk) as url, client() as http:
        assert isinstance(await ask(http, "POST", url, json={}), Unanswered)


async def test_an_answer_that_does_not_come_in_time_means_that_nobody_knows() -> None:
    held = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        await held.wait()

    async with listening(talk) as url, client() as http:
        answer = await ask(http, "POST", url, json={}, timeout=0.05)
        held.set()

    assert answer == Unanswered("ReadTimeout")

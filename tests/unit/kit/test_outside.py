"""Outside calls are told honestly: answered, certainly not taken, or nobody knows."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network

import httpx
import pytest

from deploy.embedded.ports import LOOPBACK, free_ports
from shared.kit.decisions import Refused, Unanswered
from shared.kit.guard import Guard, is_public
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


# -- calls that others say where they go ------------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::1", "::",
    "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "172.32.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_a_network_of_ours_is_not_public(address: str) -> None:
    assert not is_public(address)
    assert not Guard().lets(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


def test_a_network_may_be_let_all_the_same() -> None:
    guard = Guard([ip_network("127.0.0.0/8")])
    assert guard.lets("127.0.0.1")
    assert not guard.lets("10.0.0.1")


SPELLINGS = {
    "127.0.0.1": "NotPublic", "localhost": "NotPublic", "[::ffff:127.0.0.1]": "NotPublic", "[::1]": "NotPublic",
    "2130706433": None, "0x7f.1": None, "127.1": None, "0": None,
}  # fmt: skip
"""By spelling why it is refused; None where the machine's resolver may not know the spelling."""


@pytest.mark.parametrize("host", SPELLINGS)
async def test_a_guarded_call_to_ourselves_is_refused_however_it_is_spelled_and_nothing_arrives(host: str) -> None:
    arrived: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(hear, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client(guard=Guard()) as http:
        outcome = await ask(http, "POST", f"http://{host}:{port}/", content=b"x")
    assert isinstance(outcome, Refused | Unanswered)
    assert SPELLINGS[host] in {None, outcome.reason}
    assert arrived == []


async def test_a_name_that_leads_elsewhere_the_second_time_is_looked_at_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: what was public when somebody looked is private when it is called."""
    answers = iter(["93.184.216.34", LOOPBACK])
    asked_for: list[str] = []

    async def resolve(loop: object, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        address = next(answers)
        asked_for.append(address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(type(loop), "getaddrinfo", resolve)
    looked_at = (await loop.getaddrinfo("rebound.example", 80))[0][4][0]
    async with client(guard=Guard()) as http:
        outcome = await ask(http, "POST", "http://rebound.example/")
    assert is_public(looked_at)
    assert asked_for == ["93.184.216.34", LOOPBACK]
    assert outcome == Refused("NotPublic")


async def test_of_an_answer_without_end_only_the_beginning_is_read() -> None:
    ended = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
                await writer.drain()
        ended.set()

    server = await asyncio.start_server(hear, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client(guard=Guard([ip_network("127.0.0.0/8")], most=10_000)) as http:
        answer = await ask(http, "POST", f"http://{LOOPBACK}:{port}/")
        assert isinstance(answer, httpx.Response)
        assert len(answer.content) == 10_000
        async with asyncio.timeout(10):
            await ended.wait()

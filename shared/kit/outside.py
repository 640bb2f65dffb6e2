"""Outside calls over HTTP, told honestly: answered, certainly not taken, or nobody knows.

httpx is what services see, and what tests answer in process. On the wire aiohttp carries it: with 64 calls in flight
httpx's own transport took eight times the processor (4.0 ms a call against 0.5 ms, one machine, one run). Plain
requests also pass httpx's client by, whose cookies, redirects and authentication none has and each pays for (100 us).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.request import getproxies

import aiohttp
import httpx

from shared.kit.clock import SystemClock
from shared.kit.decisions import Refused, Unanswered
from shared.kit.guard import Barred, Guard

_NOT_TAKEN = frozenset({429, 503})


_PACKED = b"content-encoding"


class NotPublic(httpx.ConnectError):
    """The address is one that a guard does not let be called; nothing was sent."""


def client(connections: int = 256, guard: Guard | None = None) -> httpx.AsyncClient:
    """A client for a service's outside calls, with so many connections at most. To be closed."""
    return _Client(_Wire(connections, guard))


class _Client(httpx.AsyncClient):
    """httpx's client; a request that asks for none of its own services goes on the wire as it is."""

    def __init__(self, wire: _Wire) -> None:
        super().__init__(transport=wire)
        self._wire = wire

    async def request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a request. Raises httpx's errors."""
        if not options.keys() <= _PLAIN or not isinstance(url, str):
            return await super().request(method, url, **options)
        headers, content = dict(options.get("headers") or {}), options.get("content")
        if (body := options.get("json")) is not None:
            content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            headers.setdefault("Content-Type", "application/json")
        within = options.get("timeout", _PATIENCE)
        allowed = aiohttp.ClientTimeout(connect=within, sock_connect=within, sock_read=within)
        asked = httpx.Request(method, _parsed(url))  # What an answer tells of its request: whom, not what.
        return await self._wire.exchange(asked, url, headers, content, allowed)


_PLAIN = frozenset({"headers", "content", "json", "timeout"})
_PATIENCE = 15.0
_parsed = lru_cache(maxsize=1024)(httpx.URL)
"""An address is called again and again."""


class _Wire(httpx.AsyncBaseTransport):
    """Sends httpx's requests with aiohttp. Only what was certainly not sent is told as a failure to connect."""

    def __init__(self, connections: int, guard: Guard | None = None) -> None:
        self._connections = connections
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, its answer read whole. Raises httpx's errors."""
        allowed = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            connect=allowed.get("pool"), sock_connect=allowed.get("connect"), sock_read=allowed.get("read")
        )
        headers = request.headers.multi_items()
        return await self.exchange(request, str(request.url), headers, await request.aread() or None, timeout)

    async def exchange(
        self,
        request: httpx.Request,
        url: str,
        headers: Mapping[str, str] | Sequence[tuple[str, str]],
        content: bytes | str | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - of each step, as the client tells them apart
    ) -> httpx.Response:
        """Send it to ``url``; the answer, to ``request``, read whole. Raises httpx's errors."""
        if self._session is None:  # It wants a running loop.
            guard = self._guard
            connector = aiohttp.TCPConnector(limit=self._connections, socket_factory=guard.socket if guard else None)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                # With it, aiohttp also looks for a .netrc, at every request.
                trust_env=guard is None and bool(getproxies()),
            )
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=content, allow_redirects=False, timeout=timeout
            ) as answer:
                if self._guard is not None:
                    return await self._beginning(answer, request, self._guard.most)
                read = await answer.read()
                return httpx.Response(answer.status, headers=answer.raw_headers, content=read, request=request)
        except aiohttp.ConnectionTimeoutError as error:
            raise httpx.ConnectTimeout(type(error).__name__) from error
        except aiohttp.ClientConnectorError as error:
            kind = NotPublic if isinstance(error.os_error, Barred) else httpx.ConnectError
            raise kind(type(error).__name__) from error
        except TimeoutError as error:
            raise httpx.ReadTimeout(type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(type(error).__name__) from error

    async def _beginning(self, answer: aiohttp.ClientResponse, request: httpx.Request, most: int) -> httpx.Response:
        """An answer with no more of its body than ``most`` bytes, packed as it came; no more is taken of it."""
        read = b""
        while len(read) <= most and (part := await answer.content.readany()):
            read += part
        if len(read) > most:
            answer.close()
        headers = [pair for pair in answer.raw_headers if pair[0].lower() != _PACKED]
        return httpx.Response(answer.status, headers=headers, content=read[:most], request=request)

    async def aclose(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def ask(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    attempt: str | None = None,
    timeout: float = 15.0,  # noqa: ASYNC109 - httpx bounds the call itself, and tells how it ended
    **options: Any,
) -> httpx.Response | Refused | Unanswered:
    """Make one outside call under the idempotency key ``attempt``; ``timeout`` in seconds.

    A response of status below 500 other than 429 is an answer, whatever it says. Refused: the connection was refused,
    or the other side said 429 or 503 (RFC 9110 15.6.4), so it took nothing. Unanswered: the connection broke, time ran
    out, or the other side failed: it may have taken it.
    """
    headers = dict(options.pop("headers", None) or {})
    if attempt is not None:
        headers["Idempotency-Key"] = attempt
    try:
        response = await http.request(method, url, headers=headers, timeout=timeout, **options)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        return Refused(type(error).__name__)
    except httpx.HTTPError as error:
        return Unanswered(type(error).__name__)
    if response.status_code in _NOT_TAKEN:
        return Refused(f"status-{response.status_code}", retry_after(response))
    if response.status_code >= 500:
        return Unanswered(f"status-{response.status_code}")
    return response


def retry_after(response: httpx.Response) -> float | None:
    """Seconds until the other side wants to be asked again (RFC 9110 10.2.3), where it said so."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    at = _date(text)
    if at is None:
        return None
    since = _date(response.headers.get("Date", "")) or SystemClock().real()
    return max(0.0, (at - since).total_seconds())


def _date(text: str) -> datetime | None:
    """An HTTP date (RFC 9110 5.6.7), or None where it is not one."""
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)

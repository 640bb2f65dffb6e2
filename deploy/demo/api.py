"""The public HTTP APIs of a running stack, as somebody outside would use them: tokens, idempotency keys, patience.

A request that gets no answer, 429 or 503 is made again under the same idempotency key until ``patience`` is over: a
service may be restarting, and the key makes that safe.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

Json = dict[str, Any]

FHIR = "application/fhir+json"

_AGAIN = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class Flaw:
    """What a refusal says is wrong, and where."""

    path: str
    reason: str


class Refusal(Exception):
    """A request was answered with a problem (RFC 9457)."""

    def __init__(self, status: int, title: str, flaws: tuple[Flaw, ...]) -> None:
        super().__init__(f"{status} {title}" + "".join(f"; {flaw.path}: {flaw.reason}" for flaw in flaws))
        self.status, self.title, self.flaws = status, title, flaws


class NoAnswer(Exception):
    """A service did not answer in all the time that it was given."""


class Api:
    """A client of the services and of the message gateway's control door.

    ``urls`` names the base URL of each service and simulator; ``token`` makes a bearer token for a role. ``within``
    gives the same client for one case: its requests belong to one trace, begun by whoever asks (W3C Trace Context).
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        token: Callable[[str], str],
        http: httpx.AsyncClient,
        *,
        patience: float = 30.0,
        traceparent: str | None = None,
    ) -> None:
        self._urls = dict(urls)
        self._token = token
        self._http = http
        self._patience = patience
        self._traceparent = traceparent
        self._tokens: dict[str, str] = {}

    def within(self, trace_id: str) -> Api:
        """A client whose requests all belong to the trace with this id (32 hexadecimal digits)."""
        parent = f"00-{trace_id}-{trace_id[:16]}-01"
        return type(self)(self._urls, self._token, self._http, patience=self._patience, traceparent=parent)

    async def get(self, service: str, path: str, role: str, **params: str) -> Json:
        """Read."""
        return await self._ask("GET", service, path, role, params=params)

    async def post(self, service: str, path: str, role: str, key: str, body: Json | str | None = None) -> Json:
        """Ask for something to be done, once for each ``key``. A text is sent as FHIR, unread."""
        return await self._ask("POST", service, path, role, key=key, body=body)

    async def put(self, service: str, path: str, role: str, body: Json) -> Json:
        """Put a record where it belongs."""
        return await self._ask("PUT", service, path, role, body=body)

    async def patch(self, service: str, path: str, role: str, key: str, body: Json) -> Json:
        """Correct a record."""
        return await self._ask("PATCH", service, path, role, key=key, body=body)

    async def outside(self, name: str, path: str, body: Json | None = None) -> Json:
        """Look at a simulator, or make it do something: the world outside asks for no token."""
        method = "GET" if body is None else "POST"
        return await self._answer(method, f"{self._urls[name]}{path}", {}, None if body is None else json.dumps(body))

    async def pause(self, seconds: float) -> None:
        """Wait before asking again; a simulation, where no time passes by itself, waits otherwise."""
        await asyncio.sleep(seconds)

    async def _ask(
        self,
        method: str,
        service: str,
        path: str,
        role: str,
        *,
        key: str | None = None,
        body: Json | str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Json:
        if role not in self._tokens:
            self._tokens[role] = self._token(role)
        headers = {"Authorization": f"Bearer {self._tokens[role]}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        if self._traceparent is not None:
            headers["traceparent"] = self._traceparent
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        if text is not None:
            fhir = isinstance(body, str) or (isinstance(body, dict) and "resourceType" in body)
            headers["Content-Type"] = FHIR if fhir else "application/json"
        return await self._answer(method, f"{self._urls[service]}{path}", headers, text, params)

    async def _answer(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        text: str | None,
        params: Mapping[str, str] | None = None,
    ) -> Json:
        end = time.monotonic() + self._patience
        pause = 0.05
        while True:
            answer: httpx.Response | None = None
            try:
                answer = await self._http.request(method, url, headers=headers, content=text, params=params)
            except httpx.TransportError as error:
                why = type(error).__name__
            else:
                why = str(answer.status_code)
                if answer.status_code not in _AGAIN:
                    return _read(answer)
            if time.monotonic() + pause > end:
                raise NoAnswer(f"{method} {httpx.URL(url).path}: {why} for {self._patience:.0f} s")
            await self.pause(_retry_after(answer) or pause)
            pause = min(pause * 2, 1.0)


def _retry_after(answer: httpx.Response | None) -> float | None:
    value = answer.headers.get("Retry-After") if answer is not None else None
    return float(value) if value and value.isdigit() else None


def _read(answer: httpx.Response) -> Json:
    """The body of an answer. Raises Refusal with the paths that a problem or an OperationOutcome names."""
    try:
        body = answer.json() if answer.content else {}
    except ValueError:
        body = {}
    if answer.is_success:
        return body if isinstance(body, dict) else {"items": body}
    if not isinstance(body, dict):
        body = {}
    raise Refusal(answer.status_code, str(body.get("title") or answer.reason_phrase), tuple(_flaws(body)))


def _flaws(body: Json) -> list[Flaw]:
    named = [Flaw(str(one.get("path")), str(one.get("reason"))) for one in body.get("errors") or ()]
    issues = body.get("issue") or ()
    said = [
        Flaw(
            ", ".join(issue.get("expression") or ("",)),
            str((issue.get("details") or {}).get("text") or issue.get("diagnostics") or issue.get("code")),
        )
        for issue in issues
    ]
    return named + said

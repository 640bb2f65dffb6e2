"""The services' routes for operators, over HTTP: all services at once, each answer or why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

from deploy.carectl.places import Places

Json = dict[str, Any]

_PATIENCE = 10.0
"""Seconds for which a service that is busy, or not there, is asked again."""

_TIMEOUT = 30.0
_AGAIN = frozenset({429, 503})


class Failed(Exception):
    """What was asked for was not done; ``code`` is the exit status that says why."""

    code = 1


class Unreachable(Failed):
    """A service did not answer, or said that its store or broker does not."""

    code = 3


class NotAllowed(Failed):
    """There is no token that holds, or it is not an operator's."""

    code = 4


class Refused(Failed):
    """The service answered no: there is no such thing, or its state does not allow it."""

    code = 5

    def __init__(self, service: str, status: int, problem: Json) -> None:
        flaws = "".join(f"; {flaw['path']}: {flaw['reason']}" for flaw in problem.get("errors", ()))
        super().__init__(f"{service}: {problem.get('detail') or problem.get('title') or status}{flaws}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """One service's answer: its body, or what came instead of it."""

    service: str
    body: Json | None
    failure: Failed | None = None


class Client:
    """An operator's client of the services. An async context manager."""

    def __init__(self, places: Places, http: httpx.AsyncClient | None = None) -> None:
        self.places = places
        self.http = http or httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)
        self._token: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    @property
    def services(self) -> list[str]:
        """Those whose address is known."""
        return list(self.places.urls)

    async def get(self, service: str, path: str, **params: Any) -> Json:
        """One service's answer. Raises Failed."""
        given = {name: value for name, value in params.items() if value is not None}
        return await self._ask("GET", service, path, params=given)

    async def post(self, service: str, path: str, body: Json) -> Json:
        """Have one service do something, once. Raises Failed."""
        return await self._ask("POST", service, path, json=body, headers={"Idempotency-Key": str(uuid4())})

    async def each(self, services: Iterable[str], path: str, **params: Any) -> list[Answer]:
        """What each of these services answers; who does not answer keeps no other from it. Raises NotAllowed."""

        async def one(service: str) -> Answer:
            try:
                return Answer(service, await self.get(service, path, **params))
            except NotAllowed:
                raise
            except Failed as failure:
                return Answer(service, None, failure)

        return list(await asyncio.gather(*(one(service) for service in services)))

    async def _ask(self, method: str, service: str, path: str, **options: Any) -> Json:
        if self._token is None:
            self._token = self.places.token()
        headers = {"Authorization": f"Bearer {self._token}", **options.pop("headers", {})}
        url = f"{self.places.urls[service]}/operations{path}"
        clock = asyncio.get_running_loop().time
        end, pause = clock() + _PATIENCE, 0.1
        while True:
            try:
                answer = await self.http.request(method, url, headers=headers, **options)
            except httpx.ConnectError as error:
                raise Unreachable(f"{service}: {type(error).__name__}") from None  # nobody is there: no use in waiting
            except httpx.HTTPError as error:
                why = type(error).__name__
            else:
                if answer.status_code not in _AGAIN:
                    return _read(service, answer)
                why = _problem(answer).get("detail") or str(answer.status_code)
            if clock() + pause > end:
                raise Unreachable(f"{service}: {why}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)


def _read(service: str, answer: httpx.Response) -> Json:
    if answer.is_success:
        body: Json = answer.json()
        return body
    problem = _problem(answer)
    if answer.status_code in (401, 403):
        raise NotAllowed(f"{service}: {problem.get('detail') or answer.status_code}")
    if answer.status_code >= 500:
        raise Unreachable(f"{service}: {problem.get('detail') or answer.status_code}")
    raise Refused(service, answer.status_code, problem)


def _problem(answer: httpx.Response) -> Json:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}

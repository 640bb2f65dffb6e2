"""The HTTP door: guarded routes, RFC 9457 problems, idempotency keys, ETag and If-Match, bounded work.

A service declares ``Routes``; every route names its roles. A handler receives a ``Call`` and returns a ``Reply``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from opentelemetry.trace import SpanKind
from pydantic import StringConstraints
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.kit import metrics
from shared.kit.auth import Caller, Role
from shared.kit.commands import Answered, Commands, Exists, digest, request_key
from shared.kit.commands import Request as CommandRequest
from shared.kit.decisions import Decision, Wants
from shared.kit.document import Document, derived_id
from shared.kit.errors import (
    Busy,
    DomainError,
    Flaw,
    Forbidden,
    Gone,
    Invalid,
    Malformed,
    NotFound,
    Stale,
    TooLarge,
    Unavailable,
)
from shared.kit.store.port import StoreUnavailable
from shared.kit.store.repository import NewerShape, Repository
from shared.kit.telemetry import Telemetry, log, well_formed, where_raised

if TYPE_CHECKING:
    from shared.kit.auth import Verifier

D = TypeVar("D", bound=Document)

DocumentId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"),
]
"""A document's id: a UUID. An ill-formed one is refused with 422, naming the field."""

PUBLIC: frozenset[Role] = frozenset()
"""The roles of a route that asks for no token: health alone."""

OTHER_SYSTEMS = frozenset({Role.SERVICE})
"""The roles of a route by which gateways and payers tell us something."""

IDEMPOTENCY_KEY = "Idempotency-Key"
PROBLEM = "application/problem+json"
_KEY = re.compile(r"^[\x21-\x7e]{1,255}$")
_VERSION = re.compile(r'^(?:W/)?"(\d{1,15})"$')
_SAFE_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_:.-]{0,60}$")


class Reply(JSONResponse):
    """What a handler returns: status, JSON body, headers."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body, status_code=status, headers=dict(headers) if headers else None)


class Gate:
    """How many requests may be in work at once; one more is refused, not queued."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_work = 0

    def __enter__(self) -> None:
        if self.in_work >= self._limit:
            raise Busy(retry_after=1)
        self.in_work += 1

    def __exit__(self, *_: object) -> None:
        self.in_work -= 1


@dataclass(frozen=True, slots=True)
class Door:
    """What every route of one process shares."""

    service: str
    repository: Repository
    commands: Commands
    telemetry: Telemetry
    verifier: Verifier
    gate: Gate


class CallContext:
    """One request: who calls, under which key, and the documents it may read and change."""

    def __init__(
        self, door: Door, caller: Caller, key: str | None, digest: str, if_match: int | None, trace: str | None
    ) -> None:
        self.caller = caller
        self._door = door
        self._key = key
        self._request = CommandRequest(
            caller.subject, request_key(caller.subject, key) if key else None, digest, if_match, trace
        )

    @property
    def now(self) -> datetime:
        """The domain's time."""
        return self._door.repository.clock.now()

    def new_id(self, kind: str) -> str:
        """The id of what this request creates: derived from caller and idempotency key, so that a repeat is the same.

        Raises Malformed where no key was sent.
        """
        if self._key is None:
            raise Malformed(f"header {IDEMPOTENCY_KEY} is needed", flaws=[Flaw(IDEMPOTENCY_KEY, "is missing")])
        return derived_id(kind, self.caller.subject, self._key)

    async def create(
        self,
        document: type[D],
        id: str,
        command: object,
        decide: Decision,
        *,
        wants: Wants | None = None,
        answer: Callable[[D], dict[str, Any]] | None = None,
        status: int = 201,
    ) -> Reply:
        """Decide on a document that is not there yet. ``answer`` may hold nothing personal: it is stored."""
        return await self._run(document, id, command, decide, Exists.NO, status, wants, answer)

    async def change(
        self,
        document: type[D],
        id: str,
        command: object,
        decide: Decision,
        *,
        wants: Wants | None = None,
        answer: Callable[[D], dict[str, Any]] | None = None,
        status: int = 200,
    ) -> Reply:
        """Decide on a document that is there; 404 else, 412 where If-Match names another version."""
        return await self._run(document, id, command, decide, Exists.YES, status, wants, answer)

    async def put(
        self,
        document: type[D],
        id: str,
        command: object,
        decide: Decision,
        *,
        wants: Wants | None = None,
        answer: Callable[[D], dict[str, Any]] | None = None,
        status: int = 200,
    ) -> Reply:
        """Decide on a document that may be there or not."""
        return await self._run(document, id, command, decide, Exists.EITHER, status, wants, answer)

    async def bring(self, owner: Document, document: type[D], id: str, command: object, decide: Decision) -> None:
        """Decide on a document that comes along with a change of ``owner``, which is asked for next.

        If-Match is about the owner. Raises Stale before anything is written where it names another version of it.
        """
        request = self._request
        again = request.key is not None and request.key in owner.requests
        if request.if_match not in (None, owner.version) and not again:
            raise Stale()
        await self._door.commands.run(
            document, id, command, decide, replace(request, if_match=None), exists=Exists.EITHER, status=200
        )

    async def _run(
        self,
        document: type[D],
        id: str,
        command: object,
        decide: Decision,
        exists: Exists,
        status: int,
        wants: Wants | None,
        answer: Callable[[D], dict[str, Any]] | None,
    ) -> Reply:
        answered: Answered = await self._door.commands.run(
            document, id, command, decide, self._request, exists=exists, status=status, wants=wants, answer=answer
        )
        headers = {"ETag": f'"{answered.version}"'} if answered.version is not None else {}
        if answered.replayed:
            headers["Idempotency-Replayed"] = "true"
        return Reply(answered.status, answered.body, headers)

    async def read(self, document: type[D], id: str) -> D:
        """The document; the reading is audited. Raises NotFound."""
        found = (await self._door.repository.load(document, [id]))[id].document
        if found is None:
            raise NotFound()
        if found.shrunk:
            raise Gone()
        await self.audit("read", document, [id])
        return found

    async def find(self, document: type[D], field: str, value: str, *, limit: int = 100) -> list[D]:
        """Documents that hold ``value`` in an indexed field; the reading is audited."""
        return await self.page(document, {field: value}, limit=limit)

    async def page(
        self, document: type[D], conditions: Mapping[str, Any], *, limit: int = 100, after: str | None = None
    ) -> list[D]:
        """Documents that meet the conditions on indexed fields, by id, from behind ``after``; audited."""
        wanted = dict(conditions)
        if after is not None:
            wanted["_id"] = {"$gt": after}
        found = await self._door.repository.find(document, wanted, limit=limit)
        await self.audit("read", document, [each.id for each in found])
        return found

    async def first(
        self, document: type[D], field: str, start: datetime, end: datetime, also: Mapping[str, Any], *, limit: int
    ) -> list[D]:
        """Documents whose indexed ``field`` is from ``start`` until ``end``, the earliest first; audited."""
        wanted = {**also, field: {"$gte": start, "$lte": end}}
        found = await self._door.repository.find(document, wanted, limit=limit, sort=field)
        await self.audit("read", document, [each.id for each in found])
        return found

    async def audit(self, action: str, document: type[Document] | None, ids: Sequence[str]) -> None:
        """Write down who read or ordered what, and when (45 CFR 164.312(b)). An order is written before it is done.

        ``document`` is None where it is about none: topics, by their names.
        """
        entry = {
            "at": self._door.repository.clock.real(),
            "caller": self.caller.subject,
            "roles": sorted(self.caller.roles),
            "action": action,
            "document": document.__name__ if document is not None else None,
            "ids": list(ids),
            "trace": self._request.trace,
        }
        await self._door.repository.store.append("audit", [entry])

    def show(self, document: Document, body: Mapping[str, Any]) -> Reply:
        """A document's representation, with its version as the ETag."""
        return Reply(200, dict(body), {"ETag": f'"{document.version}"'})


async def _call(request: Request) -> CallContext:
    # A coroutine, though it waits for nothing: FastAPI hands a plain function to a thread.
    call: CallContext = request.state.call
    return call


Call = Annotated[CallContext, Depends(_call)]
"""What a handler asks for as its ``call`` parameter."""


Observer = Callable[[CallContext, Request, DomainError], Awaitable[None]]
"""Told of each request that its route refused. The call has no roles where nobody knows who it was."""

_NOBODY = Caller("", frozenset())


class _GuardedRoute(APIRoute):
    """A route that looks at the token before the body, and turns every refusal into a problem."""

    roles: ClassVar[frozenset[Role]]

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        inner = super().get_route_handler()
        template = self.path_format
        declared: frozenset[Role] | None = getattr(self.endpoint, "roles", None)
        observer: Observer | None = getattr(self.endpoint, "refused", None)

        async def handle(request: Request) -> Response:
            door: Door = request.app.state.door
            if not declared:
                return await inner(request)
            clock = door.repository.clock
            began = clock.monotonic()
            traced = door.telemetry.start(
                f"{request.method} {template}",
                well_formed(request.headers.get("traceparent")),
                lambda: {"http.request.method": request.method, "http.route": template},
                kind=SpanKind.SERVER,
            )
            with traced:
                try:
                    with door.gate:
                        request.state.call = await _admit(request, door, declared, traced.context)
                        response = await inner(request)
                except (DomainError, RequestValidationError, HTTPException, StoreUnavailable, NewerShape) as error:
                    door.repository.behind |= isinstance(error, NewerShape)
                    response = problem(refusal_of(error))
                    await _tell(observer, request, door, refusal_of(error), traced.context)
                except RecursionError:
                    response = problem(Malformed("the body is nested too deep"))
                except Exception as error:
                    log.error("request.failed", route=template, error=where_raised(error), exc_info=error)
                    response = _failure()
                if traced.span is not None:
                    traced.span.set_attribute("http.response.status_code", response.status_code)
                if traced.context:
                    response.headers["traceparent"] = traced.context
            answered: dict[str, str | int] = {metrics.ROUTE: template, metrics.STATUS: response.status_code}
            failed = {metrics.ERROR: str(response.status_code)} if response.status_code >= 500 else {}
            door.telemetry.requests.record(
                clock.monotonic() - began, {metrics.METHOD: request.method, **answered, **failed}
            )
            if declared == OTHER_SYSTEMS:
                door.telemetry.callbacks.add(1, answered)
            return response

        return handle


async def _tell(
    observer: Observer | None, request: Request, door: Door, refusal: DomainError, trace: str | None
) -> None:
    """Have a refusal noted, apart from the request's own key: a repeat is decided anew. Failing to is no failure."""
    if observer is None:
        return
    admitted: CallContext | None = getattr(request.state, "call", None)
    caller = admitted.caller if admitted is not None else _NOBODY
    try:
        await observer(CallContext(door, caller, None, "", None, trace), request, refusal)
    except (DomainError, StoreUnavailable, NewerShape) as error:
        log.warning("refusal.not-noted", error=type(error).__name__)


async def _admit(request: Request, door: Door, roles: frozenset[Role], trace: str | None) -> CallContext:
    caller = await door.verifier.caller(request.headers.get("Authorization"))
    if not caller.roles & roles:
        raise Forbidden()
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None and request.method == "POST":
        raise Malformed(f"header {IDEMPOTENCY_KEY} is needed", flaws=[Flaw(IDEMPOTENCY_KEY, "is missing")])
    if key is not None and not _KEY.match(key):
        raise Malformed(
            f"header {IDEMPOTENCY_KEY} is ill-formed",
            flaws=[Flaw(IDEMPOTENCY_KEY, "is not 1 to 255 visible characters")],
        )
    body = await request.body()
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    hashed = digest(request.method, path, body) if key is not None else ""
    return CallContext(door, caller, key, hashed, _if_match(request.headers.get("If-Match")), trace)


def _if_match(header: str | None) -> int | None:
    if header is None or header.strip() == "*":
        return None
    match = _VERSION.match(header.strip())
    if match is None:
        raise Malformed("header If-Match is not an ETag of ours", flaws=[Flaw("If-Match", "is ill-formed")])
    return int(match.group(1))


H = TypeVar("H", bound=Callable[..., Awaitable[Response]])


class Routes:
    """The routes of one resource. Each declares the roles that may use it."""

    def __init__(self, prefix: str = "", tags: Sequence[str] = ()) -> None:
        self.router = APIRouter(prefix=prefix, tags=list(tags), route_class=_GuardedRoute)

    def _add(self, method: str, path: str, roles: Iterable[Role], status: int) -> Callable[[H], H]:
        declared = frozenset(roles)
        if not declared:
            raise ValueError(f"{method} {path} declares no roles")
        return self._declare(method, path, declared, status)

    def _declare(self, method: str, path: str, roles: frozenset[Role], status: int) -> Callable[[H], H]:
        def add(handler: H) -> H:
            handler.roles = roles  # type: ignore[attr-defined]
            self.router.add_api_route(
                path,
                handler,
                methods=[method],
                status_code=status,
                response_model=None,
                openapi_extra={"x-roles": sorted(roles)},
            )
            return handler

        return add

    def public(self, path: str) -> Callable[[H], H]:
        """A GET that asks for no token and reads nothing: health."""
        return self._declare("GET", path, PUBLIC, 200)

    def get(self, path: str, *, roles: Iterable[Role], status: int = 200) -> Callable[[H], H]:
        """A query."""
        return self._add("GET", path, roles, status)

    def post(
        self, path: str, *, roles: Iterable[Role], status: int = 200, refused: Observer | None = None
    ) -> Callable[[H], H]:
        """A command; the request must carry an Idempotency-Key. ``refused`` is told of those that are refused."""
        add = self._add("POST", path, roles, status)

        def observed(handler: H) -> H:
            handler.refused = refused  # type: ignore[attr-defined]
            return add(handler)

        return observed

    def put(self, path: str, *, roles: Iterable[Role], status: int = 200) -> Callable[[H], H]:
        """A command that sets a whole resource."""
        return self._add("PUT", path, roles, status)

    def patch(self, path: str, *, roles: Iterable[Role], status: int = 200) -> Callable[[H], H]:
        """A command that changes a part of a resource."""
        return self._add("PATCH", path, roles, status)

    def delete(self, path: str, *, roles: Iterable[Role], status: int = 200) -> Callable[[H], H]:
        """A command that ends a resource."""
        return self._add("DELETE", path, roles, status)


class _LimitedBody:
    """Refuses bodies over a limit when a route reads them: at once where their length is told, else as they come."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        over = not told.isdigit() or int(told) > self._limit
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            if over:
                raise TooLarge(f"the body is over {self._limit} bytes")
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise TooLarge(f"the body is over {self._limit} bytes")
            return message

        await self._app(scope, limited, send)


def refusal_of(error: Exception) -> DomainError:
    """The refusal that an error amounts to, naming places and never values."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, RequestValidationError):
        return Invalid("the request does not fit", flaws=[_flaw(each) for each in error.errors()])
    if isinstance(error, StoreUnavailable | NewerShape):
        return Unavailable()
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotFound("there is no such route")
    refusal = Malformed("the request could not be read")
    if isinstance(error, HTTPException):
        refusal.status = error.status_code
    return refusal


def _flaw(error: Mapping[str, Any]) -> Flaw:
    where, *parts = error["loc"]
    if error["type"] == "extra_forbidden":
        parts = [*parts[:-1], "(unknown field)"]
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]" if error["type"] != "json_invalid" else ""
        elif part == "(unknown field)" or _SAFE_NAME.match(str(part)):
            path += f".{part}" if path else str(part)
        else:
            path += ".(a key)"
    reason = "is not JSON" if error["type"] == "json_invalid" else str(error["msg"])
    return Flaw(path or str(where), reason)


def problem(refusal: DomainError) -> Response:
    """RFC 9457 problem details of a refusal; ``errors`` names the fields."""
    body: dict[str, Any] = {
        "type": f"urn:carerelay:problem:{refusal.slug}",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if refusal.flaws:
        body["errors"] = [{"path": flaw.path, "reason": flaw.reason} for flaw in refusal.flaws]
    headers = {}
    if isinstance(refusal, Busy):
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=refusal.status, headers=headers, media_type=PROBLEM)


def _failure() -> Response:
    body = {
        "type": "urn:carerelay:problem:failure",
        "title": "Something failed on our side",
        "status": 500,
        "detail": "Something failed on our side; the same request may be sent again under the same key",
    }
    return JSONResponse(body, status_code=500, media_type=PROBLEM)


async def _refused(_: Request, error: Exception) -> Response:
    return problem(refusal_of(error))


def application(door: Door, routes: Iterable[Routes], *, max_body_bytes: int) -> FastAPI:
    """The ASGI application of one process."""
    app = FastAPI(title=f"CareRelay {door.service}", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.door = door
    for kind in (DomainError, RequestValidationError, HTTPException, StoreUnavailable):
        app.add_exception_handler(kind, _refused)
    for each in routes:
        app.include_router(each.router)
    app.add_middleware(_LimitedBody, limit=max_body_bytes)
    return app


def undeclared(app: FastAPI) -> list[str]:
    """The routes that declare no roles; a test wants none."""

    def flat(routes: Iterable[Any]) -> Iterable[Any]:
        for route in routes:
            included = getattr(route, "original_router", None)
            if included is None:
                yield route
            else:
                yield from flat(included.routes)

    return [
        getattr(route, "path", "?")
        for route in flat(app.routes)
        if not isinstance(getattr(getattr(route, "endpoint", None), "roles", None), frozenset)
    ]

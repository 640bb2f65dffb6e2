"""Runs one command on one document: the API's way into a decision. Idempotent by key, conditional by version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from shared.kit import metrics
from shared.kit.decisions import Decision, Facts, Want, Wants
from shared.kit.document import Answer, Document, derived_id
from shared.kit.errors import Busy, Gone, Invalid, KeyReused, NotFound, Stale, TooLarge
from shared.kit.store.port import Outcome, Unstorable, Write
from shared.kit.store.repository import Held, Repository
from shared.kit.telemetry import Telemetry, case_attributes

D = TypeVar("D", bound=Document)

KEPT_REQUESTS = 40
KEPT_FOR = timedelta(days=1)
"""How many answers to idempotency keys a document keeps, and for how long at least one of them is kept if crowded."""

MAX_RACES = 200

CLAIMS = "requests"
"""The collection that says which request an idempotency key was first used for, whatever document that led to."""


class Exists(Enum):
    """What a command expects of its document."""

    NO = "create"
    YES = "change"
    EITHER = "put"


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what, as far as idempotency and tracing need it.

    ``key`` is derived from caller and Idempotency-Key, None where none was sent; ``digest`` is the request's hash;
    ``if_match`` is the version the caller has seen; ``trace`` is the request's own trace context.
    """

    caller: str
    key: str | None
    digest: str
    if_match: int | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What a command is answered, now or by its first run. ``version`` is the document's, where it is known."""

    status: int
    body: dict[str, Any]
    version: int | None
    replayed: bool = False


def digest(method: str, path: str, body: bytes) -> str:
    """The hash by which a repeated request is known to be the same; JSON bodies by content, not by spelling."""
    try:
        canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode() if body else b""
    except (ValueError, RecursionError):
        canonical = body
    return hashlib.sha256(method.encode() + b"\n" + path.encode() + b"\n" + canonical).hexdigest()


def request_key(caller: str, key: str) -> str:
    """What an idempotency key is remembered under: another caller's same key is another key."""
    return derived_id("request", caller, key)


class Commands:
    """Commands on the documents of one service."""

    def __init__(self, repository: Repository, telemetry: Telemetry) -> None:
        self._repository = repository
        self._telemetry = telemetry

    async def run(
        self,
        document: type[D],
        id: str,
        command: Any,
        decide: Decision,
        request: Request,
        *,
        exists: Exists,
        status: int,
        wants: Wants | None = None,
        answer: Callable[[D], dict[str, Any]] | None = None,
    ) -> Answered:
        """Decide and write, again on the fresh document when another writer was first.

        Raises DomainError: the decision's own, NotFound, Stale, KeyReused, TooLarge, Busy.
        """
        facts: dict[Want, list[Any]] = {}
        clock = self._repository.clock
        began = clock.monotonic()
        for _ in range(MAX_RACES):
            held = (await self._repository.load(document, [id]))[id]
            earlier = self._answered(held.document, request)
            if earlier is not None:
                return earlier
            self._expect(held.document, exists, request)
            known = await self._facts(wants, command, id, held.document, facts)
            traced = self._trace(held, command, request)
            with traced:
                decided: D = decide(held.document, command, known, self._repository.clock.now())
            if decided.id != id:
                raise Invalid("the decision made another document than was asked for")
            held.document = decided
            held.take_events(traced.context)
            if decided.trace is None:
                decided.trace = traced.context
            body = answer(decided) if answer else _default_answer(decided)
            if request.key is not None:
                self._remember(decided, request.key, request.digest, status, body)
            try:
                write = self._repository.stage(held)
            except Unstorable as refusal:
                raise TooLarge(f"{document.__name__} {refusal}") from refusal
            if write is None:
                return Answered(status, _versioned(body, decided.version), decided.version)
            await self._claim(request)
            outcome = (await self._repository.write(document, [(held, write)]))[0]
            if isinstance(outcome, Unstorable):
                raise TooLarge(f"{document.__name__} {outcome}")
            if outcome is Outcome.WON:
                about = {metrics.DOCUMENT: document.__name__}
                self._telemetry.decided.add(1, about)
                self._telemetry.latency.record(clock.monotonic() - began, {**about, metrics.DOOR: "api"})
                return Answered(status, _versioned(body, decided.version), decided.version)
            self._telemetry.conflicts.add(1, {"carerelay.document.type": document.__name__})
            facts.clear()
        raise Busy(f"{document.__name__} is changed by too many at once")

    def _answered(self, document: Document | None, request: Request) -> Answered | None:
        """What this key was answered before, if it was. Raises KeyReused for another request under it."""
        if document is None or request.key is None or request.key not in document.requests:
            return None
        kept = document.requests[request.key]
        if kept.request_hash != request.digest:
            raise KeyReused()
        return Answered(kept.status, kept.body, kept.version, replayed=True)

    async def _claim(self, request: Request) -> None:
        """Keep the key for this request before its write. Raises KeyReused where another one was written under it.

        The answer stands in the document; but a body may name another document, which knows nothing of the key. A
        refused request claims nothing, so that it can be mended and sent again under the same key.
        """
        if request.key is None:
            return
        store = self._repository.store
        claim = {"version": 1, "digest": request.digest, "at": self._repository.clock.real()}
        outcome = (await store.write(CLAIMS, [Write(request.key, None, claim)]))[0]
        if outcome is Outcome.WON:
            return
        if any(kept["digest"] != request.digest for kept in await store.load(CLAIMS, [request.key])):
            raise KeyReused()

    def _expect(self, document: Document | None, exists: Exists, request: Request) -> None:
        if document is not None and document.shrunk:
            raise Gone()
        if document is None and exists is Exists.YES:
            raise NotFound()
        if document is not None and exists is Exists.NO:
            raise KeyReused("this was created before by another request")
        if request.if_match is not None and request.if_match != (document.version if document else 0):
            raise Stale()

    async def _facts(
        self, wants: Wants | None, command: Any, id: str, document: Document | None, facts: dict[Want, list[Any]]
    ) -> Facts:
        if wants is None:
            return Facts(id=id)
        wanted = list(wants(command, document))
        await self._repository.facts(wanted, facts)
        return Facts({want: facts[want] for want in wanted}, id)

    def _trace(self, held: Held[Any], command: Any, request: Request) -> Any:
        """A command on a known case continues the case's trace and links to the request that brought it."""
        case = held.document.trace if held.document is not None else None
        return self._telemetry.start(
            f"decide {type(command).__name__}",
            case or request.trace,
            lambda: {
                "carerelay.document.type": held.type.__name__,
                "carerelay.document.id": held.id,
                **case_attributes(command),
                **case_attributes(held.document),
            },
            links=[request.trace] if case else [],
        )

    def _remember(self, document: Document, key: str, digest: str, status: int, body: dict[str, Any]) -> None:
        """Keep the answer in the write that it is the answer to; that write makes the next version."""
        now = self._repository.clock.real()
        version = document.version + 1
        kept = _versioned(body, version)
        document.requests[key] = Answer(request_hash=digest, status=status, body=kept, at=now, version=version)
        if len(document.requests) > KEPT_REQUESTS:
            oldest_first = sorted(document.requests, key=lambda key: document.requests[key].at)
            for key in oldest_first[: len(document.requests) - KEPT_REQUESTS]:
                if now - document.requests[key].at > KEPT_FOR or len(document.requests) > KEPT_REQUESTS * 4:
                    del document.requests[key]


def _versioned(body: dict[str, Any], version: int) -> dict[str, Any]:
    """A body that tells the document's version; a FHIR resource takes no fields but its own."""
    return body if "resourceType" in body else {**body, "version": body.get("version", version)}


def _default_answer(document: Document) -> dict[str, Any]:
    state = getattr(document, "state", None)
    return {"id": document.id} if state is None else {"id": document.id, "state": str(state)}

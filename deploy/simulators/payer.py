"""Payers, as prior_authorization and intake meet them: FHIR R4 over HTTP, scripted by member id, with a ledger.

One simulator answers for any number of payer ids. What takes time (a pended request, its notification) happens in
``tick`` when the injected clock says so. See README.md for the wire.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import httpx
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import Field

from deploy.simulators.adjudication import (
    Script,
    action_for,
    decides_at,
    refuse_unless_allowed,
    rule,
    script_of_member,
    script_of_words,
)
from deploy.simulators.ledger import (
    Authorization,
    EligibilityCheck,
    Journal,
    Notification,
    PayerLedger,
    Received,
    Requests,
    Ruling,
    Sent,
    earliest,
)
from deploy.simulators.outbound import Outbound, Parcel, TokenSource, taken
from deploy.simulators.pas import (
    Inquiry,
    Resource,
    Submission,
    eligibility_response,
    notification_bundle,
    operation_outcome,
    pend_number,
    read_eligibility,
    read_inquiry,
    read_submission,
    response_bundle,
)
from deploy.simulators.wire import Order, answer, due_answer, read_body, read_json, read_order
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.document import derived_id
from shared.kit.errors import DomainError, Flaw, Invalid, KeyReused, NotFound

FHIR_JSON = "application/fhir+json"
MAX_BODY_BYTES = 1024 * 1024
NOBODYS_PAYER = "unknown-payer"
_PAYER_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")

Sleep = Callable[[float], Awaitable[None]]


class InquiryAnswer(StrEnum):
    """How $inquire wraps its result: the Bundle itself, or 2.2.1's Parameters with a part ``return`` per Bundle."""

    BUNDLE = "bundle"
    PARAMETERS = "parameters"


class Operation(StrEnum):
    """The FHIR operations that are counted per payer."""

    ELIGIBILITY = "eligibility"
    SUBMIT = "submit"
    INQUIRE = "inquire"


@dataclass(slots=True)
class Outage:
    """The next ``count`` FHIR requests, of one payer or of any, are refused."""

    status: int
    count: int
    retry_after: int
    payer_id: str | None


class OutageOrder(Order):
    """POST /control/outage."""

    status: int = Field(503, ge=400, le=599)
    count: int = Field(ge=1)
    retry_after: int = Field(2, ge=0)
    payer_id: str | None = None


@dataclass(slots=True)
class Pending:
    """A submission whose decision is to come."""

    due: datetime
    submission: Submission
    script: Script


@dataclass(slots=True)
class Case:
    """An authorization with what answering needs beyond the ledger."""

    entry: Authorization
    submissions: dict[str, Submission] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    pending: Pending | None = None


class Refusal(Exception):
    """An answer other than the operation's own: an outage, a scripted fault."""

    def __init__(self, status: int, code: str, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.retry_after = status, code, text, retry_after


class Payer:
    """All payers. ``now`` is domain time; ``http`` carries notifications to ``notify_url`` with a ``token``.

    ``sleep`` is awaited, for ``slow_seconds`` of real time, before a late answer; one that raises
    ``httpx.ReadTimeout`` makes an in-process caller see a timeout at once. ``strict`` validates every Bundle against
    FHIR R4 (milliseconds each; a simulation of thousands of cases may do without). ``data`` gets the journal.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        http: httpx.AsyncClient,
        notify_url: str | None = None,
        token: TokenSource | None = None,
        sleep: Sleep = asyncio.sleep,
        slow_seconds: float = 20.0,
        strict: bool = True,
        inquiry: InquiryAnswer = InquiryAnswer.BUNDLE,
        data: Path | None = None,
    ) -> None:
        self._now = now
        self._notify_url = notify_url
        self._sleep = sleep
        self._slow_seconds = slow_seconds
        self._strict = strict
        self._inquiry = inquiry
        self._journal = Journal(data / "payer.jsonl" if data is not None else None)
        self._outbound = Outbound(now, http, token)
        self._cases: dict[tuple[str, str], Case] = {}
        self._undecided: dict[tuple[str, str], Case] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._scripts: dict[str, Script] = {}
        self._spent: dict[str, Counter[tuple[str, str]]] = {}
        """By member, how often each payer's scripted faults have struck."""
        self._outages: list[Outage] = []
        self._events = 0
        self.subscriptions: dict[tuple[str, str], Resource] = {}
        self.ledger = PayerLedger()
        self.app = self._make_app()

    # -- time -------------------------------------------------------------------------------------------------------

    def next_due(self) -> datetime | None:
        """When ``tick`` will next have something to do."""
        return earliest([self._outbound.next_due(), *(pending.due for _, pending in self._pending())])

    async def tick(self) -> int:
        """Decide and notify what is due; returns how much there was."""
        return self._decide_due() + await self._outbound.tick()

    def _pending(self) -> Iterable[tuple[Case, Pending]]:
        return [(case, case.pending) for case in self._undecided.values() if case.pending is not None]

    def _await(self, case: Case, pending: Pending | None) -> None:
        """Have a case wait for its decision, or no longer."""
        case.pending = pending
        key = (case.entry.payer_id, case.entry.id)
        if pending is None:
            self._undecided.pop(key, None)
        else:
            self._undecided[key] = case

    def _decide_due(self) -> int:
        """Decide what is due, as of the time it was due. Requests ask too, so that none overtakes a decision."""
        now = self._now()
        due = sorted(((c, p) for c, p in self._pending() if p.due <= now), key=lambda pair: pair[1].due)
        for case, pending in due:
            self._await(case, None)
            submission, script = pending.submission, pending.script
            ruling = self._rule(case, submission, script, pending.due)
            if script.notify:
                self._notify(case, submission, script, ruling)
        return len(due)

    # -- decisions --------------------------------------------------------------------------------------------------

    def _rule(self, case: Case, submission: Submission, script: Script, at: datetime) -> Ruling:
        action = action_for(script, submission.certification)
        return self._record(case, submission, script, action, at)

    def _record(self, case: Case, submission: Submission, script: Script, action: ReviewAction, at: datetime) -> Ruling:
        payer_id = case.entry.payer_id
        ruling = rule(script, action, payer_id=payer_id, claim=submission.attempt_id, units=submission.units, at=at)
        case.entry.history.append(ruling)
        case.entry.current = ruling
        name = ruling.number or (pend_number(payer_id, ruling.claim) if action is ReviewAction.PENDED else None)
        if name is not None:
            self._names[payer_id, name] = submission.attempt_id
        self._journal.write(at, "ruling", {"payer_id": payer_id, "id": case.entry.id, **_plain(ruling)})
        return ruling

    def _notify(self, case: Case, submission: Submission, script: Script, ruling: Ruling) -> None:
        if self._notify_url is None:
            return
        payer_id = case.entry.payer_id
        reply = response_bundle(
            payer_id=payer_id, asked=submission, answered=submission, ruling=ruling, script=script, at=ruling.at
        )
        self._events += 1
        content = notification_bundle(payer_id=payer_id, number=self._events, answer=reply, at=ruling.at)
        for copy in range(script.copies):
            # A copy has a key of its own: whoever deduplicates by the key alone is found out.
            self._send_notification(case, ruling, content, f"{content['id']}-{copy + 1}")

    def _send_notification(self, case: Case, ruling: Ruling, content: Resource, key: str) -> None:
        entry = Notification(claim=ruling.claim, due=ruling.at)
        case.entry.notifications.append(entry)

        def note(at: datetime, status: int | None) -> None:
            entry.sent.append(Sent(at=at, status=status))
            entry.accepted = entry.accepted or taken(status)
            self._journal.write(at, "notification", {"id": case.entry.id, "claim": ruling.claim, "status": status})

        url = (self._notify_url or "").replace("{payer_id}", case.entry.payer_id)
        headers = self._subscribed_headers(case.entry.payer_id)
        self._outbound.add(Parcel(key, url, json.dumps(content).encode(), FHIR_JSON, ruling.at, note, headers=headers))

    def _subscribed_headers(self, payer_id: str) -> dict[str, str]:
        """The headers that the subscription wants with each notification (FHIR R4: Subscription.channel.header)."""
        lines: list[str] = []
        for (payer, _), resource in self.subscriptions.items():
            channel = resource.get("channel")
            given = channel.get("header") if payer == payer_id and isinstance(channel, dict) else None
            lines += given if isinstance(given, list) else []
        return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def _script(self, member_id: str) -> Script:
        return self._scripts.get(member_id) or script_of_member(member_id)

    def _spend(self, payer_id: str, member_id: str, fault: str, allowed: int) -> bool:
        """Whether a scripted fault strikes once more."""
        spent = self._spent.setdefault(member_id, Counter())
        if spent[payer_id, fault] >= allowed:
            return False
        spent[payer_id, fault] += 1
        return True

    # -- requests ---------------------------------------------------------------------------------------------------

    def _admit(self, payer_id: str, operation: Operation) -> None:
        """Count the request; refuse it during an outage, or where no such payer is known."""
        if not _PAYER_ID.fullmatch(payer_id) or payer_id == NOBODYS_PAYER:
            raise NotFound("no such payer")
        counts = self.ledger.requests.setdefault(payer_id, Requests())
        setattr(counts, operation, getattr(counts, operation) + 1)
        for outage in self._outages:
            if outage.payer_id in (None, payer_id) and outage.count > 0:
                outage.count -= 1
                raise Refusal(outage.status, "transient", "The payer is not available", outage.retry_after)
        self._decide_due()

    async def submit(self, payer_id: str, body: bytes, key: str | None) -> bytes:
        """Claim/$submit: the answer's JSON. Raises DomainError or Refusal."""
        self._admit(payer_id, Operation.SUBMIT)
        submission = read_submission(read_json(body), strict=self._strict)
        script = self._script(submission.member_id)
        member = submission.member_id
        if self._spend(payer_id, member, "busy", script.busy):
            raise Refusal(429, "throttled", "Too many requests", script.retry_after)
        if self._spend(payer_id, member, "error", script.error):
            raise Refusal(500, "exception", "The payer failed")
        stored = self._repeated(payer_id, submission, key) or self._take(payer_id, submission, script, key)
        if self._spend(payer_id, member, "lost", script.lost):
            raise Refusal(500, "exception", "The payer failed")
        if self._spend(payer_id, member, "slow", script.slow):
            await self._sleep(self._slow_seconds)
        return stored

    def _repeated(self, payer_id: str, submission: Submission, key: str | None) -> bytes | None:
        """The stored answer where this submission was taken before; refuses what only looks like it."""
        path = f"{submission.claim.path}.identifier[0].value"
        known = self._keys.get((payer_id, key), submission.attempt_id) if key is not None else submission.attempt_id
        if known != submission.attempt_id:
            raise KeyReused("the Idempotency-Key was used for another claim", flaws=[Flaw(path, "differs")])
        case = self._cases.get((payer_id, submission.attempt_id))
        if case is None:
            return None
        if case.submissions[submission.attempt_id].fingerprint != submission.fingerprint:
            raise KeyReused(flaws=[Flaw(path, "was used for another claim")])
        entry = next(claim for claim in case.entry.claims if claim.attempt_id == submission.attempt_id)
        entry.duplicates.append(self._now())
        self._journal.write(self._now(), "duplicate", {"id": case.entry.id, "attempt_id": entry.attempt_id})
        return case.answers[submission.attempt_id]

    def _take(self, payer_id: str, submission: Submission, script: Script, key: str | None) -> bytes:
        """Take a submission that is new: open or extend its case, decide or pend it, keep the answer."""
        now = self._now()
        attempt_id = submission.attempt_id
        case = self._case_for(payer_id, submission)
        received = Received(
            attempt_id=attempt_id,
            certification_type=submission.certification,
            related=submission.related,
            received_at=now,
            idempotency_key=key,
            units_requested=sum(submission.units),
        )
        case.entry.claims.append(received)
        case.submissions[attempt_id], case.scripts[attempt_id] = submission, script
        self._cases[payer_id, attempt_id] = case
        self._names[payer_id, submission.reference] = attempt_id
        if key is not None:
            self._keys[payer_id, key] = attempt_id
        self._journal.write(now, "claim", {"payer_id": payer_id, "id": case.entry.id, **_plain(received)})
        ruling = self._decide_or_pend(case, submission, script, now)
        reply = response_bundle(
            payer_id=payer_id, asked=submission, answered=submission, ruling=ruling, script=script, at=now
        )
        case.answers[attempt_id] = json.dumps(reply).encode()
        return case.answers[attempt_id]

    def _decide_or_pend(self, case: Case, submission: Submission, script: Script, now: datetime) -> Ruling:
        # Whatever was pended before is overtaken by a cancellation, a revision or an appeal.
        self._await(case, None)
        due = decides_at(script, submission.certification, now, submission.documents)
        if due <= now:
            return self._rule(case, submission, script, now)
        self._await(case, Pending(due, submission, script))
        return self._record(case, submission, script, ReviewAction.PENDED, now)

    def _case_for(self, payer_id: str, submission: Submission) -> Case:
        if submission.certification.is_first:
            entry = Authorization(payer_id=payer_id, id=submission.attempt_id, member_id=submission.member_id)
            self.ledger.authorizations.append(entry)
            return Case(entry)
        case = self._find(payer_id, submission.related or "")
        if case is None or case.entry.current is None:
            raise Invalid(flaws=[Flaw(submission.related_path, "names no claim that was submitted here")])
        if case.entry.member_id != submission.member_id:
            raise Invalid(flaws=[Flaw(submission.related_path, "names a claim of another member")])
        refuse_unless_allowed(submission.certification, case.entry.current.action)
        return case

    def _find(self, payer_id: str, name: str) -> Case | None:
        """A case by an attempt id, ``Claim/<id>``, or a number."""
        attempt_id = self._names.get((payer_id, name), name)
        return self._cases.get((payer_id, attempt_id))

    def inquire(self, payer_id: str, body: bytes) -> Resource:
        """Claim/$inquire: the case's current decision. Raises DomainError or Refusal."""
        self._admit(payer_id, Operation.INQUIRE)
        inquiry = read_inquiry(read_json(body), strict=self._strict)
        now = self._now()
        reply = self._answer_inquiry(payer_id, inquiry, now)
        if self._inquiry is InquiryAnswer.BUNDLE:
            return reply
        entries = reply.get("entry")
        found = isinstance(entries, list) and entries[0]["resource"]["resourceType"] == "ClaimResponse"
        part: list[Resource] = [{"name": "return", "resource": reply}] if found else []
        parameters: Resource = {"resourceType": "Parameters"}
        return {**parameters, "parameter": part} if part else parameters

    def _answer_inquiry(self, payer_id: str, inquiry: Inquiry, now: datetime) -> Resource:
        names = (inquiry.attempt_id, *inquiry.numbers)
        case = next((case for name in names if (case := self._find(payer_id, name)) is not None), None)
        if case is None or case.entry.current is None:
            return response_bundle(
                payer_id=payer_id, asked=inquiry, answered=None, ruling=None, script=Script(), at=now, inquiry=True
            )
        case.entry.inquiries.append(now)
        self._journal.write(now, "inquiry", {"payer_id": payer_id, "id": case.entry.id})
        ruling = case.entry.current
        return response_bundle(
            payer_id=payer_id,
            asked=inquiry,
            answered=case.submissions[ruling.claim],
            ruling=ruling,
            script=case.scripts[ruling.claim],
            at=now,
            inquiry=True,
        )

    def subscribe(self, payer_id: str, resource: object, id: str) -> Resource:
        """Subscription, created or renewed under an id. Raises DomainError."""
        if not isinstance(resource, dict) or resource.get("resourceType") != "Subscription":
            raise Invalid(flaws=[Flaw("Subscription", "is required")])
        taken = {**resource, "id": id, "status": "active"}
        self.subscriptions[payer_id, id] = taken
        return taken

    def check_eligibility(self, payer_id: str, body: bytes) -> Resource:
        """CoverageEligibilityRequest/$submit. Raises DomainError or Refusal."""
        self._admit(payer_id, Operation.ELIGIBILITY)
        request = read_eligibility(read_json(body))
        now = self._now()
        script = self._script(request.member_id)
        in_force = script.in_force if script.known else None
        check = EligibilityCheck(payer_id=payer_id, member_id=request.member_id, at=now, in_force=in_force)
        self.ledger.eligibility.append(check)
        self._journal.write(now, "eligibility", check)
        return eligibility_response(request, script=script, at=now)

    # -- control ----------------------------------------------------------------------------------------------------

    def script(self, member_id: str, script: Script) -> None:
        """Set how a member is treated from now on; faults count anew."""
        self._scripts[member_id] = script
        self._spent.pop(member_id, None)

    def reconsider(self, payer_id: str, name: str, action: ReviewAction) -> Ruling:
        """Decide a case anew without being asked to: its latest decision is replaced, and notified where that is done.

        ``name`` is an attempt id, a reference or a number of the case. Raises LookupError where nothing is decided.
        """
        case = self._find(payer_id, name)
        if case is None or case.entry.current is None or case.pending is not None:
            raise LookupError(name)
        claim = case.entry.current.claim
        submission, script = case.submissions[claim], case.scripts[claim]
        ruling = self._record(case, submission, script, action, self._now())
        if script.notify:
            self._notify(case, submission, script, ruling)
        return ruling

    def outage(self, count: int, *, status: int = 503, retry_after: int = 2, payer_id: str | None = None) -> None:
        """Refuse the next ``count`` FHIR requests."""
        self._outages.append(Outage(status, count, retry_after, payer_id))

    # -- HTTP -------------------------------------------------------------------------------------------------------

    def _make_app(self) -> FastAPI:
        app = FastAPI(title="Payer simulator", openapi_url=None)
        app.state.payer = self
        app.include_router(self._fhir_routes())
        app.include_router(self._control_routes())

        @app.exception_handler(DomainError)
        async def refused(request: Request, refusal: DomainError) -> Response:
            self._count_refusal(request)
            return answer(_outcome_of(refusal), refusal.status, FHIR_JSON)

        @app.exception_handler(Refusal)
        async def failed(request: Request, refusal: Refusal) -> Response:
            self._count_refusal(request)
            outcome = operation_outcome([(refusal.code, refusal.text, None)])
            if refusal.retry_after is None or refusal.status not in (429, 503):
                return answer(outcome, refusal.status, FHIR_JSON)
            return answer(outcome, refusal.status, FHIR_JSON, Retry_After=str(refusal.retry_after))

        return app

    def _count_refusal(self, request: Request) -> None:
        counts = self.ledger.requests.get(request.path_params.get("payer_id", ""))
        if counts is not None:
            counts.refused += 1

    def _fhir_routes(self) -> APIRouter:
        routes = APIRouter(prefix="/{payer_id}/fhir")

        @routes.post("/Claim/$submit")
        async def submit(payer_id: str, request: Request) -> Response:
            body = await read_body(request, MAX_BODY_BYTES)
            stored = await self.submit(payer_id, body, request.headers.get("Idempotency-Key"))
            return Response(stored, media_type=FHIR_JSON)

        @routes.post("/Claim/$inquire")
        async def inquire(payer_id: str, request: Request) -> Response:
            return answer(self.inquire(payer_id, await read_body(request, MAX_BODY_BYTES)), media=FHIR_JSON)

        @routes.post("/Subscription")
        async def subscribe(payer_id: str, request: Request) -> Response:
            resource = read_json(await read_body(request, MAX_BODY_BYTES))
            taken = self.subscribe(payer_id, resource, derived_id("subscription-at", payer_id))
            return answer(taken, 201, FHIR_JSON)

        @routes.put("/Subscription/{id}")
        async def renew(payer_id: str, id: str, request: Request) -> Response:
            if (payer_id, id) not in self.subscriptions:
                raise NotFound("no such subscription")
            return answer(
                self.subscribe(payer_id, read_json(await read_body(request, MAX_BODY_BYTES)), id), media=FHIR_JSON
            )

        @routes.post("/CoverageEligibilityRequest/$submit")
        async def eligibility(payer_id: str, request: Request) -> Response:
            body = await read_body(request, MAX_BODY_BYTES)
            return answer(self.check_eligibility(payer_id, body), media=FHIR_JSON)

        return routes

    def _control_routes(self) -> APIRouter:
        routes = APIRouter()

        @routes.get("/health")
        async def health() -> dict[str, str]:
            return {"status": "ok"}

        @routes.get("/ledger")
        async def ledger() -> Response:
            self._decide_due()
            return answer(self.ledger)

        @routes.get("/next-due")
        async def next_due() -> Response:
            return due_answer(self.next_due)

        @routes.post("/control/script")
        async def script(request: Request) -> Response:
            order = read_json(await read_body(request, MAX_BODY_BYTES))
            member_id, script = _script_order(order)
            self.script(member_id, script)
            return Response(status_code=204)

        @routes.post("/control/outage")
        async def outage(request: Request) -> Response:
            order = read_order(OutageOrder, await read_body(request, MAX_BODY_BYTES))
            self.outage(order.count, status=order.status, retry_after=order.retry_after, payer_id=order.payer_id)
            return Response(status_code=204)

        return routes


def _plain(fact: Ruling | Received) -> dict[str, object]:
    plain: dict[str, object] = fact.model_dump(mode="json")
    return plain


class _Named(Order):
    member_id: str = Field(min_length=1)
    words: str | None = None


def _script_order(raw: object) -> tuple[str, Script]:
    """POST /control/script: by words, by fields, or by words with some fields set otherwise."""
    if not isinstance(raw, dict):
        raise Invalid(flaws=[Flaw("", "must be an object")])
    own = {name: raw[name] for name in ("member_id", "words") if name in raw}
    order = read_order(_Named, json.dumps(own).encode())
    fields = {name: value for name, value in raw.items() if name not in own}
    try:
        base = script_of_words(order.words or "")
    except ValueError:
        raise Invalid(flaws=[Flaw("words", "unknown words")]) from None
    given = read_order(Script, json.dumps(fields).encode())
    return order.member_id, base.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


def _outcome_of(refusal: DomainError) -> Resource:
    """An OperationOutcome with one issue per flaw. The code is FHIR's issue-type."""
    fallback = {"malformed": "structure", "not-found": "not-found", "too-large": "too-long"}.get(refusal.slug)
    code = fallback or ("duplicate" if isinstance(refusal, KeyReused) else "business-rule")
    if not refusal.flaws:
        return operation_outcome([(code, refusal.detail, None)])
    return operation_outcome([(_issue_code(refusal, flaw), flaw.reason, flaw.path) for flaw in refusal.flaws])


def _issue_code(refusal: DomainError, flaw: Flaw) -> str:
    if isinstance(refusal, KeyReused):
        return "duplicate"
    if flaw.reason.startswith("names "):
        return "not-found"
    return "required" if flaw.reason.startswith("is required") else "value"


def app(
    now: Callable[[], datetime],
    http: httpx.AsyncClient,
    *,
    notify_url: str | None = None,
    token: TokenSource | None = None,
    sleep: Sleep = asyncio.sleep,
    slow_seconds: float = 20.0,
    strict: bool = True,
    inquiry: InquiryAnswer = InquiryAnswer.BUNDLE,
    data: Path | None = None,
) -> FastAPI:
    """The payers' FastAPI app; the ``Payer`` behind it is ``app.state.payer``. See ``Payer`` for the arguments."""
    payer = Payer(
        now=now,
        http=http,
        notify_url=notify_url,
        token=token,
        sleep=sleep,
        slow_seconds=slow_seconds,
        strict=strict,
        inquiry=inquiry,
        data=data,
    )
    return payer.app

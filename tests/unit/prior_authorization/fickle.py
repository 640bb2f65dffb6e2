"""A payer that answers as it is told to, well or badly, and checks that what it is sent is legal.

It knows what it sent and what was heard of it, and from that alone, without the service's code, what is the case now.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx

from services.prior_authorization.pas import codes

GRANTS = ("A1", "A2", "A6")
GOOD_NEWS = (*GRANTS, "NA")
START = datetime(2026, 3, 2, 15, tzinfo=UTC)

Json = dict[str, Any]
Deliver = Callable[["Letter"], Awaitable[None]]


@dataclass(frozen=True)
class Words:
    """What a payer decides: X12 306, its number, units granted and X12 886 reasons."""

    action: str
    number: str | None = None
    units: int | None = None
    reasons: tuple[str, ...] = ()


VOCABULARY = (
    Words("A1", "AUTH-1", 4),
    Words("A1", "AUTH-2", 4),
    Words("A2", "AUTH-3", 2),
    Words("A6", "AUTH-6", 1),
    Words("A3", reasons=("82",)),
    Words("A3", reasons=("86",)),
    Words("A3", reasons=("0P",)),
    Words("A4"),
    Words("C"),
    Words("CT"),
    Words("NA"),
)


@dataclass(frozen=True)
class Letter:
    """One answer about a claim: its words, and the payer's own date and issue date of them."""

    claim: str
    words: Words
    created: datetime
    issued: date | None = None

    @property
    def age(self) -> tuple[datetime, date]:
        """By what decisions are ordered."""
        return self.created, self.issued or date.min

    @property
    def decides(self) -> bool:
        """Whether it is more than a pend."""
        return self.words.action != "A4"


@dataclass(frozen=True)
class Plan:
    """How the next call is dealt with.

    ``fault`` None answers it with ``words`` dated ``minutes`` after START; ``first`` is notified before it is answered.
    """

    words: Words = Words("A4")
    minutes: int = 0
    issued: date | None = None
    fault: str | None = None
    first: tuple[Words, int] | None = None

    def letter(self, claim: str) -> Letter:
        """This plan's words about a claim."""
        return Letter(claim, self.words, START + timedelta(minutes=self.minutes), self.issued)


FAULTS = (
    "timeout",
    "refused",
    "busy",
    "failed",
    "rejected",
    "not-json",
    "not-fhir",
    "other-claim",
    "unknown-item",
    "item-twice",
    "no-action",
    "unknown-action",
    "no-number",
    "dated-ahead",
    "errors",
    "errors-never",
    "no-date",
)


@dataclass
class Claim:
    """A claim as it was first sent."""

    id: str
    certification: str
    related: str | None
    items: tuple[tuple[int, str], ...]
    body: Json


@dataclass
class Heard:
    """The letters about one claim that the service acknowledged, in that order."""

    letters: list[Letter] = field(default_factory=list)

    @property
    def latest(self) -> Letter | None:
        """The latest decision by the payer's date; of one date, the one that was heard first."""
        found: Letter | None = None
        for letter in self.letters:
            if letter.decides and (found is None or letter.age > found.age):
                found = letter
        return found


class FicklePayer(httpx.AsyncBaseTransport):
    """The payer's HTTP side. ``deliver`` notifies the service of a letter while a call of it is out."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.cancels: dict[str, Claim] = {}
        self.plans: dict[str, list[Plan]] = {"$submit": [], "$inquire": []}
        self.heard: dict[str, Heard] = {}
        self.cancelled = False
        self.sent: list[str] = []
        self.illegal: list[str] = []
        self.rejected: set[str] = set()
        self.deliver: Deliver | None = None

    # -- what is the case ---------------------------------------------------------------------------------------------

    @property
    def chain(self) -> list[str]:
        """The claims that the service knows the payer to have, oldest first, appeals among them."""
        return [id for id in self.claims if self.heard.get(id) and self.heard[id].letters]

    def latest(self, claim: str) -> Letter | None:
        """The latest decision on a claim that was heard."""
        return self.heard[claim].latest if claim in self.heard else None

    def standing(self) -> Letter | None:
        """The decision that holds: the newest claim's, or good news on an older one that is dated later."""
        *older, newest = self.chain or [""]
        standing = self.latest(newest)
        for claim in reversed(older):
            letter = self.latest(claim)
            good = letter is not None and letter.words.action in GOOD_NEWS
            if letter is not None and good and (standing is None or letter.age > standing.age):
                standing = letter
        return standing

    def hear(self, letter: Letter) -> None:
        """The service acknowledged a letter."""
        self.heard.setdefault(letter.claim, Heard()).letters.append(letter)

    # -- calls --------------------------------------------------------------------------------------------------------

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Check what is sent, then deal with it as planned."""
        bundle = json.loads(await request.aread())
        operation = request.url.path.rsplit("/", 1)[-1]
        claim = _claim_of(bundle)
        self.sent.append(f"{operation} {claim.certification}")
        if operation == "$inquire":
            assert claim.id in self.claims, "only claims of ours are asked after"
            return await self._answer(operation, claim)
        try:
            self._legal(claim)
        except AssertionError as error:
            # The service takes this for a payer that failed; whoever tests looks at what was noted.
            self.illegal.append(f"{claim.certification}: {error}")
            raise
        if claim.related is not None and claim.related not in self.claims:
            issue = {"severity": "error", "code": "not-found"}
            return httpx.Response(422, json={"resourceType": "OperationOutcome", "issue": [issue]})
        kept = self.cancels if claim.certification == "3" else self.claims
        kept.setdefault(claim.id, claim)
        return await self._answer(operation, claim)

    def _legal(self, claim: Claim) -> None:
        """Refuse, loudly, what PAS 2.2.1 forbids to send, by what the service had heard when it sent it."""
        known = self.claims.get(claim.id) or self.cancels.get(claim.id)
        if known is not None:
            assert known.body == claim.body, "a claim that is sent again is the same claim"
            return
        if claim.related is None:
            assert claim.certification == "I"
            before = next(reversed(self.claims), None)
            refused = before in self.rejected or (before is not None and self._action(before) == "A3")
            assert before is None or refused, "another request takes the place of one that was refused"
            if before is not None:
                assert self.claims[before].items == claim.items, "item sequence numbers are stable for ever"
            return
        related = self.claims.get(claim.related)
        if related is None:
            assert claim.certification == "3", "only what was perhaps never sent is cancelled unseen"
            return
        assert related.items == claim.items, "item sequence numbers are stable for ever"
        action = self._action(claim.related)
        if claim.certification in ("1", "2"):
            assert action == "A3", "an appeal follows a denial"
        else:
            assert claim.certification == "3", "nothing else is ever updated"
            assert action not in ("A3", "C"), "a claim that was denied or cancelled is not updated"

    def _action(self, claim: str) -> str | None:
        latest = self.latest(claim)
        return latest.words.action if latest is not None else None

    async def _answer(self, operation: str, claim: Claim) -> httpx.Response:
        waiting = self.plans[operation]
        plan = waiting.pop(0) if waiting else self._usual(claim)
        if plan.first is not None and claim.certification != "3" and self.deliver is not None:
            words, minutes = plan.first
            await self.deliver(Letter(claim.id, words, START + timedelta(minutes=minutes)))
        if plan.fault is not None:
            return self._fail(plan, claim)
        letter = plan.letter(claim.id)
        body = response(letter, claim) if operation == "$submit" else inquiry_response(letter, claim)
        if claim.certification == "3":
            self.cancelled = self.cancelled or letter.words.action == "C"
        else:
            self.hear(letter)
        return httpx.Response(200, json=body)

    def _usual(self, claim: Claim) -> Plan:
        """Left to itself it confirms cancellations, pends, and repeats what was heard last."""
        if claim.certification == "3":
            return Plan(Words("C"))
        latest = self.latest(claim.id)
        if latest is None:
            return Plan()
        minutes = int((latest.created - START).total_seconds() / 60)
        return Plan(latest.words, minutes, latest.issued)

    def _fail(self, plan: Plan, claim: Claim) -> httpx.Response:
        if plan.fault == "timeout":
            raise httpx.ReadTimeout("too slow")
        if plan.fault == "refused":
            raise httpx.ConnectError("not there")
        statuses = {"busy": 429, "failed": 500, "rejected": 400}
        if plan.fault in statuses:
            return httpx.Response(statuses[plan.fault], json={"resourceType": "OperationOutcome", "issue": []})
        if plan.fault == "not-json":
            return httpx.Response(200, text="<html>")
        if plan.fault in ("errors", "errors-never") and claim.id in self.claims:
            self.rejected.add(claim.id)
        return httpx.Response(200, json=flawed(plan.fault or "", plan.letter(claim.id), claim))


def _claim_of(bundle: Json) -> Claim:
    raw = bundle["entry"][0]["resource"]
    assert raw["resourceType"] == "Claim", "the Claim comes first"
    related = raw["related"][0]["claim"]["identifier"]["value"] if "related" in raw else None
    certification = {
        extension["valueCodeableConcept"]["coding"][0]["code"]
        for item in raw["item"]
        for extension in item["extension"]
        if extension["url"] == codes.CERTIFICATION_TYPE
    }
    assert len(certification) == 1
    items = tuple((item["sequence"], json.dumps(item["productOrService"])) for item in raw["item"])
    return Claim(raw["identifier"][0]["value"], certification.pop(), related, items, bundle)


# -- what it says --------------------------------------------------------------------------------------------------


def response(letter: Letter, claim: Claim, profile: str = "claimresponse") -> Json:
    """A PAS response Bundle with one ClaimResponse."""
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"fullUrl": "urn:uuid:answer", "resource": claim_response(letter, claim, profile)}],
    }


def inquiry_response(letter: Letter, claim: Claim) -> Json:
    """What $inquire returns since 2.2.1."""
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": "return", "resource": response(letter, claim, "claiminquiryresponse")}],
    }


def notification(letter: Letter, claim: Claim) -> Json:
    """A subscription notification with full resource."""
    parameters = [{"name": "status", "valueCode": "active"}, {"name": "type", "valueCode": "event-notification"}]
    status = {"resourceType": "Parameters", "parameter": parameters}
    resource = claim_response(letter, claim, "claimresponse")
    return {"resourceType": "Bundle", "type": "history", "entry": [{"resource": status}, {"resource": resource}]}


def claim_response(letter: Letter, claim: Claim, profile: str) -> Json:
    """One ClaimResponse about every item of a claim."""
    return {
        "resourceType": "ClaimResponse",
        "meta": {"profile": [f"{codes.PAS}profile-{profile}"]},
        "status": "active",
        "type": {"coding": [{"system": codes.THO + "claim-type", "code": "professional"}]},
        "use": "preauthorization",
        "patient": {"reference": "Patient/p"},
        "created": letter.created.isoformat(),
        "insurer": {"reference": "Organization/i"},
        "request": {"identifier": {"value": letter.claim}},
        "outcome": "complete",
        "item": [_item(letter, sequence) for sequence, _ in claim.items],
    }


def _item(letter: Letter, sequence: int) -> Json:
    words = letter.words
    extensions: list[Json] = []
    if letter.issued is not None:
        extensions.append({"url": codes.ITEM_ISSUE_DATE, "valueDate": letter.issued.isoformat()})
    if words.units is not None:
        quantity = {"url": "quantity", "valueQuantity": {"value": words.units}}
        extensions.append({"url": codes.ITEM_DETAIL, "extension": [quantity]})
    parts: list[Json] = [{"url": "number", "valueString": words.number}] if words.number else []
    parts += [{"url": "reasonCode", "valueCodeableConcept": _concept(codes.X12_REASON, code)} for code in words.reasons]
    action = _concept(codes.X12_REVIEW_ACTION, words.action)
    parts.append({"url": codes.REVIEW_ACTION_CODE, "valueCodeableConcept": action})
    adjudication = {
        "category": _concept(codes.THO + "adjudication", "submitted"),
        "extension": [{"url": codes.REVIEW_ACTION, "extension": parts}],
    }
    item: Json = {"itemSequence": sequence, "adjudication": [adjudication]}
    return {"extension": extensions, **item} if extensions else item


def _concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def flawed(fault: str, letter: Letter, claim: Claim) -> Json:
    """A response that cannot be used, for the reason ``fault``."""
    body = response(letter, claim)
    answer = body["entry"][0]["resource"]
    item = answer["item"][0]
    parts = item["adjudication"][0]["extension"][0]["extension"]
    if fault == "not-fhir":
        return {"resourceType": "Patient"}
    if fault == "other-claim":
        answer["request"] = {"identifier": {"value": "somebody-elses"}}
    elif fault == "unknown-item":
        item["itemSequence"] = 77
    elif fault == "item-twice":
        answer["item"].append(item)
    elif fault == "no-action":
        item["adjudication"][0].pop("extension")
    elif fault == "unknown-action":
        parts[-1]["valueCodeableConcept"]["coding"][0]["code"] = "Z9"
    elif fault == "no-number":
        grant = Letter(letter.claim, Words("A1", None, 4), letter.created)
        return response(grant, claim)
    elif fault == "dated-ahead":
        answer["created"] = "2031-01-01T00:00:00Z"
    elif fault == "no-date":
        answer.pop("created")
    elif fault in ("errors", "errors-never"):
        answer["item"] = []
        error: Json = {"code": _concept("https://codesystem.x12.org/005010/901", "33")}
        if fault == "errors-never":
            never = _concept("https://codesystem.x12.org/005010/889", "N")
            error["extension"] = [{"url": codes.ERROR_FOLLOW_UP, "valueCodeableConcept": never}]
        answer["error"] = [error]
    return body

"""The HTTP side of prior authorization: what coordinators see and do; the doors for payers stand in ``payers``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.prior_authorization import fhir_api, letters, listing, payers, requirements
from services.prior_authorization.fhir import Asker
from services.prior_authorization.letters import LetterKind
from services.prior_authorization.model import Authorization, Item, Kind, Member, RuleBook, State, lifetime
from services.prior_authorization.model.answers import ItemRuling, Ruling
from services.prior_authorization.model.asking import (
    Open,
    OpenAs,
    Supply,
    Update,
    open_directly,
    replaced,
    supply,
    update,
)
from services.prior_authorization.model.authorization import Submission
from services.prior_authorization.model.clocks import outlook
from services.prior_authorization.model.contesting import (
    AskForTalk,
    BookTalk,
    EndTalk,
    Resubmit,
    ask_for_talk,
    book_talk,
    end_talk,
    resubmit,
)
from services.prior_authorization.model.deciding import differing
from services.prior_authorization.model.denials import Offer, PeerToPeer, TalkOutcome
from services.prior_authorization.model.evidence import (
    Canonical,
    Contents,
    EvidenceKind,
    KeepContents,
    LoincCode,
    contents_id,
    keep,
)
from services.prior_authorization.model.evidence import Evidence as Piece
from services.prior_authorization.model.opening import (
    AddEvidence,
    Seek,
    Withdraw,
    add_evidence,
    check_of_use,
    seek,
    withdraw,
)
from services.prior_authorization.model.people import (
    AcceptDenial,
    Appeal,
    ExtendClock,
    SendAgain,
    SettleContradiction,
    accept_denial,
    appeal,
    extend_clock,
    send_again,
    settle_contradiction,
)
from services.prior_authorization.model.visits import Visit, VisitStatus
from services.prior_authorization.model.wanted import Wanted
from services.prior_authorization.pas.subscriptions import Secrets
from shared.contracts.base import Coding
from shared.kit import shown
from shared.kit.api import Call, CallContext, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.errors import Flaw, Invalid
from shared.kit.store.port import EPOCH

READERS = frozenset({Role.COORDINATOR, Role.CLINICIAN, Role.SCHEDULER, Role.AUDITOR, Role.OPERATOR, Role.SERVICE})
CHASERS = frozenset({Role.COORDINATOR})
WRITERS = frozenset({Role.COORDINATOR, Role.CLINICIAN})
"""Who may read a letter: it bears the member's name."""

CONTESTED = frozenset({State.SUBMITTING, State.DENIED, State.APPEALING, State.DENIED_FINAL})

Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
MAX_EVIDENCE = 4 * 1024 * 1024
"""Characters of base64 in one piece of evidence."""

_AHEAD = timedelta(days=366)
"""Further than any limit of a payer reaches."""

_SAMPLE = 50
"""How many of a payer's requests tell how it decides. Ids follow from a hash, so these are any of them."""

_KNOWN_PAYERS = 10
"""Of so many payers on one worklist the history is read; of the others the time alone tells."""

Limit = Annotated[int, Query(ge=1, le=200)]


class CancelBody(BaseModel):
    """Why an authorization is called off: a code, never text about a person."""

    model_config = ConfigDict(extra="forbid")

    reason: Code = "coordinator"


class Evidence(BaseModel):
    """One piece of what an appeal carries: what it is, and the id under which it is kept."""

    model_config = ConfigDict(extra="forbid")

    code: Code
    reference: DocumentId


class AppealBody(BaseModel):
    """How a denial is appealed."""

    model_config = ConfigDict(extra="forbid")

    expedited: bool = False
    evidence: list[Evidence] = Field(default=[], max_length=20)


class ResubmitBody(BaseModel):
    """The codes of what was put right, and the diagnoses where those were wrong."""

    model_config = ConfigDict(extra="forbid")

    corrected: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{1,20}$")]] = Field(max_length=50)
    diagnoses: list[Coding] | None = Field(None, max_length=12)


class TalkTime(BaseModel):
    """When an offered talk begins, with its zone."""

    model_config = ConfigDict(extra="forbid")

    start: AwareDatetime


class TalkOffer(TalkTime):
    """A time at which the payer's physician can be reached."""

    end: AwareDatetime

    @model_validator(mode="after")
    def _lasts(self) -> TalkOffer:
        if self.end <= self.start:
            raise ValueError("ends before it begins")
        return self


class TalkBody(BaseModel):
    """The times that the payer offers, until when it talks about the denial, and whose calendar is to have the talk.

    Within the offers the clinician's own calendar decides, unless a person takes one.
    """

    model_config = ConfigDict(extra="forbid")

    offers: list[TalkOffer] = Field(default=[], max_length=20)
    not_after: AwareDatetime | None = None
    clinician_id: DocumentId | None = None


class TalkEnd(BaseModel):
    """How a talk ended."""

    model_config = ConfigDict(extra="forbid")

    outcome: TalkOutcome


class ExtendBody(BaseModel):
    """By how many calendar days the payer extended its time."""

    model_config = ConfigDict(extra="forbid")

    days: Annotated[int, Field(ge=1, le=60)]


class EvidenceItem(BaseModel):
    """One piece of evidence with its bytes in base64; ``sha256`` (hex), where it is given, must be theirs."""

    model_config = ConfigDict(extra="forbid")

    kind: EvidenceKind
    type: LoincCode
    data: Annotated[str, StringConstraints(min_length=4, max_length=MAX_EVIDENCE)]
    content_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-z0-9.+-]{1,60}$")] = "application/pdf"
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    reference: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,64}/[A-Za-z0-9.-]{1,64}$")] | None = None
    dated: date | None = None
    canonical: Canonical | None = None

    def read(self, place: int, now: datetime) -> Piece:
        """What is kept of it on the authorization. Raises Invalid."""
        try:
            content = base64.b64decode(self.data, validate=True)
        except ValueError:
            raise Invalid(
                "the evidence cannot be read", flaws=[Flaw(f"items[{place}].data", "is not base64")]
            ) from None
        digest = hashlib.sha256(content).hexdigest()
        if self.sha256 not in (None, digest):
            raise Invalid("the evidence cannot be used", flaws=[Flaw(f"items[{place}].sha256", "is not that of data")])
        about = self.model_dump(exclude={"data", "sha256"})
        return Piece(**about, sha256=digest, added_at=now)


class EvidenceBody(BaseModel):
    """Evidence for a request."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[tuple[EvidenceItem, ...], Field(min_length=1, max_length=20)]


def routes(rules: RuleBook, notifier: str, asker: Asker, secrets: Secrets) -> tuple[Routes, ...]:
    """All routes of this service, under these rules; ``notifier`` may notify for any payer, ``asker`` asks them, and
    ``secrets`` are those of our subscriptions."""
    return (
        requirements.routes(rules),
        _authorizations(rules),
        payers.routes(rules, notifier, secrets),
        fhir_api.routes(asker),
    )


def _authorizations(rules: RuleBook) -> Routes:
    found = Routes(prefix="/authorizations", tags=("authorizations",))

    @found.get("", roles=READERS)
    async def worklist(
        call: Call,
        state: State | None = None,
        payer_id: Annotated[str | None, Query(max_length=64)] = None,
        referral_id: DocumentId | None = None,
        patient_id: DocumentId | None = None,
        after: DocumentId | None = None,
        limit: Limit = 100,
    ) -> Reply:
        """The authorizations in a state, of a payer, a referral or a patient, by id; at least one of them is named."""
        asked = {"state": state, "payer_id": payer_id, "referral_id": referral_id, "patient_id": patient_id}
        conditions = {name: str(value) for name, value in asked.items() if value is not None}
        if not conditions:
            raise Invalid("say which", flaws=[Flaw("state", "is needed, or payer_id, referral_id or patient_id")])
        found, more = await listing.page(call, conditions, limit=limit, after=after)
        return Reply(200, {"authorizations": [summary(each) for each in found], "after": more})

    @found.get("/clocks", roles=READERS)
    async def running_clocks(
        call: Call, payer_id: Annotated[str | None, Query(max_length=64)] = None, limit: Limit = 100
    ) -> Reply:
        """The authorizations that payers owe a decision on, what breaches first or is late already on top."""
        also = {} if payer_id is None else {"payer_id": payer_id}
        found = await call.first(Authorization, "breaches_at", EPOCH, call.now + _AHEAD, also, limit=limit)
        payers = list(dict.fromkeys(each.payer_id for each in found))[:_KNOWN_PAYERS]
        history = {payer: await _history(call, payer) for payer in payers}
        lines = [{**summary(each), "clock": clock(each, call.now, history.get(each.payer_id, ()))} for each in found]
        return Reply(200, {"authorizations": lines})

    @found.get("/{id}", roles=READERS)
    async def read(id: DocumentId, call: Call) -> Reply:
        """One authorization with its claims, rulings and troubles, and how the payer's clock stands."""
        document = await call.read(Authorization, id)
        history = await _history(call, document.payer_id) if document.breaches_at else ()
        return call.show(document, {**view(document), "clock": clock(document, call.now, history)})

    @found.post("", roles=CHASERS, status=201)
    async def open_one(body: Open, call: Call) -> Reply:
        """Ask a payer for approval of these services, without a referral or in place of what was denied.

        409 where what it replaces was not denied, 422 where an item points at what is not there.
        """
        command = OpenAs(**dict(body), id=call.new_id("authorization"))
        return await call.create(
            Authorization, command.id, command, partial(open_directly, rules), wants=replaced, answer=summary
        )

    @found.post("/{id}/update", roles=CHASERS)
    async def update_one(id: DocumentId, body: Update, call: Call) -> Reply:
        """Change what the payer has pended or approved. 409 where it was denied: a new one is opened instead."""
        return await call.change(Authorization, id, body, update)

    @found.post("/{id}/supply", roles=CHASERS)
    async def supply_asked(id: DocumentId, call: Call, body: Supply | None = None) -> Reply:
        """Send the payer the documents that it asked for. 409 where it asks for nothing, or nothing here answers it."""
        return await call.change(Authorization, id, body or Supply(), supply)

    @found.post("/{id}/cancel", roles=CHASERS)
    async def cancel(id: DocumentId, body: CancelBody, call: Call) -> Reply:
        """Call it off, with the payer where the payer may have it."""
        return await call.change(Authorization, id, Withdraw(reason=body.reason), withdraw)

    @found.post("/{id}/appeal", roles=CHASERS)
    async def appeal_denial(id: DocumentId, call: Call, body: AppealBody | None = None) -> Reply:
        """Appeal the denial that is open; 409 after the last day to file."""
        asked = body or AppealBody()
        attached = {each.code: each.reference for each in asked.evidence}
        return await call.change(Authorization, id, Appeal(expedited=asked.expedited, attached=attached), appeal)

    @found.post("/{id}/resubmit", roles=CHASERS)
    async def resubmit_corrected(id: DocumentId, body: ResubmitBody, call: Call) -> Reply:
        """Send a refused request anew, put right; 409 while something is still to be put right."""
        diagnoses = None if body.diagnoses is None else tuple(body.diagnoses)
        return await call.change(
            Authorization, id, Resubmit(corrected=tuple(body.corrected), diagnoses=diagnoses), resubmit
        )

    @found.post("/{id}/peer-to-peer", roles=CHASERS)
    async def peer_to_peer(id: DocumentId, body: TalkBody, call: Call) -> Reply:
        """Ask for a talk with the payer's physician, or add the times that the payer offers."""
        offers = tuple(Offer(start=each.start, end=each.end) for each in body.offers)
        asked = AskForTalk(offers=offers, not_after=body.not_after, clinician_id=body.clinician_id)
        return await call.change(Authorization, id, asked, ask_for_talk)

    @found.post("/{id}/peer-to-peer/book", roles=CHASERS | {Role.CLINICIAN, Role.SCHEDULER})
    async def book_peer_to_peer(id: DocumentId, body: TalkTime, call: Call) -> Reply:
        """Take one of the offered times."""
        return await call.change(Authorization, id, BookTalk(start=body.start), book_talk)

    @found.post("/{id}/peer-to-peer/outcome", roles=CHASERS | {Role.CLINICIAN})
    async def end_peer_to_peer(id: DocumentId, body: TalkEnd, call: Call) -> Reply:
        """How the talk ended; what the payer decides after it is its own word."""
        return await call.change(Authorization, id, EndTalk(outcome=body.outcome), end_talk)

    @found.get("/{id}/letters/{kind}", roles=WRITERS)
    async def letter(id: DocumentId, kind: LetterKind, call: Call) -> Reply:
        """A letter about the denial that stands, with the member's name as it is known now; nothing of it is stored."""
        document = await call.read(Authorization, id)
        known = await call.page(Member, {"_id": document.patient_id}, limit=1)
        text = letters.write(kind, document, known[0] if known else None, call.now)
        return Reply(200, {"kind": kind, "text": text}, {"Cache-Control": "no-store"})

    @found.post("/{id}/accept-denial", roles=CHASERS)
    async def accept(id: DocumentId, call: Call) -> Reply:
        """Let the open denial stand."""
        return await call.change(Authorization, id, AcceptDenial(), accept_denial)

    @found.post("/{id}/seek", roles=CHASERS)
    async def seek_anyway(id: DocumentId, call: Call) -> Reply:
        """Seek approval of what may not be covered, or is for another to ask."""
        return await call.change(Authorization, id, Seek(), seek)

    @found.post("/{id}/evidence", roles=CHASERS | {Role.CLINICIAN, Role.SERVICE})
    async def attach(id: DocumentId, body: EvidenceBody, call: Call) -> Reply:
        """Documents, notes, results and answered questionnaires to be sent along, with their bytes."""
        document = await call.read(Authorization, id)
        check_of_use(document)
        pieces = tuple(piece.read(place, call.now) for place, piece in enumerate(body.items))
        for piece, sent in zip(pieces, body.items, strict=True):
            kept = KeepContents(patient_id=document.patient_id, data=sent.data)
            await call.bring(document, Contents, contents_id(id, piece.sha256), kept, keep)
        return await call.change(Authorization, id, AddEvidence(pieces=pieces), add_evidence)

    @found.post("/{id}/extend-clock", roles=CHASERS)
    async def extend(id: DocumentId, body: ExtendBody, call: Call) -> Reply:
        """The payer said that it takes more time."""
        return await call.change(Authorization, id, ExtendClock(days=body.days), extend_clock)

    @found.post("/{id}/send-again", roles=CHASERS | {Role.OPERATOR})
    async def resend(id: DocumentId, call: Call) -> Reply:
        """Send once more what the payer would not take."""
        return await call.change(Authorization, id, SendAgain(), send_again)

    @found.post("/{id}/settle-contradiction", roles=CHASERS)
    async def settle(id: DocumentId, call: Call) -> Reply:
        """A person looked at the payer's contradicting decisions; the state stands."""
        return await call.change(Authorization, id, SettleContradiction(), settle_contradiction)

    return found


# -- what is shown --------------------------------------------------------------------------------------------------


def summary(document: Authorization) -> dict[str, Any]:
    """One line of a worklist."""
    ruling = document.current
    return {
        "id": document.id,
        "referral_id": document.referral_id,
        "patient_id": document.patient_id,
        "payer_id": document.payer_id,
        "state": document.state,
        "action": ruling.action if ruling else None,
        "number": ruling.number if ruling else None,
        "wait": shown.wait(document),
        "contradicted": bool(document.contradictions),
        "version": document.version,
    }


Decided = tuple[Kind, bool, float]
"""A claim's kind, its urgency, and what share of its time the payer had used when it decided."""


async def _history(call: CallContext, payer_id: str) -> list[Decided]:
    """How the payer decided what it was asked."""
    found: list[Decided] = []
    for document in await call.page(Authorization, {"payer_id": payer_id, "breaches_at": None}, limit=_SAMPLE):
        running, held = document.clock, document.held
        if running is not None and held is not None and held.ruling is not None:
            found.append((held.kind, document.expedited, running.spent(held.ruling.decided_at)))
    return found


def clock(document: Authorization, now: datetime, history: Sequence[Decided]) -> dict[str, Any] | None:
    """How the payer's clock stands: times left in whole seconds, by the calendar and in its working hours."""
    running, held = document.clock, document.held
    if running is None or held is None or document.breaches_at is None:
        return None
    spent = running.spent(now)
    alike = [share for kind, expedited, share in history if (kind, expedited) == (held.kind, document.expedited)]
    return {
        "line_of_business": document.terms.line_of_business,
        "limit": running.limit,
        "basis": running.basis,
        "in_force_from": running.since.isoformat(),
        "received_at": shown.instant(running.received_at),
        "deadline": shown.instant(running.deadline),
        "extended_days": running.extended_days,
        "seconds_left": int(running.left(now).total_seconds()),
        "working_seconds_left": int(running.working_left(now).total_seconds()),
        "spent": round(spent, 3),
        "outlook": outlook(spent, alike),
        "late": now >= running.deadline,
    }


def view(document: Authorization) -> dict[str, Any]:
    """All that people need to chase it: ids and codes only."""
    return {
        **summary(document),
        "service": document.service.model_dump(),
        "items": [_item(item) for item in document.items],
        "update": _claim(document.update) if document.update else None,
        "replaces": document.replaces,
        "renews": document.renews,
        "units_requested": document.quantity,
        "expedited": document.expedited,
        "requested_at": shown.instant(document.requested_at),
        "rule": document.terms.why,
        "requirement": requirements.shown(document.terms),
        "evidence": {
            "needed": [need.model_dump(mode="json") for need in document.terms.needs],
            "there": [piece.model_dump(mode="json") for piece in document.evidence],
            "missing": [need.name for need in document.wanting],
        },
        "wanted": [_wanted(document, each) for each in document.wanted],
        "carried_to": document.carried_to,
        "appeal": document.terms.appeal,
        "ruling": _ruling(document.current) if document.current else None,
        "denial": _denial(document),
        "retrospective": document.retrospective,
        "transferred_to": document.transferred_to,
        "continuity": document.continuity.model_dump(mode="json") if document.continuity else None,
        "units": _units(document),
        "visits": [_visit(document, visit) for visit in document.visits],
        "differences": _differences(document),
        "claims": [_claim(submission) for submission in document.submissions],
        "history": [_ruling(ruling) for ruling in document.history],
        "contradictions": [_ruling(ruling) for ruling in document.contradictions],
        "troubles": [{"reason": t.reason, "source": t.source, "at": shown.instant(t.at)} for t in document.troubles],
        "polled_at": shown.instant(document.polled_at),
    }


def _item(item: Item) -> dict[str, Any]:
    return item.model_dump(mode="json", exclude_defaults=True) | {"quantity": item.quantity, "kind": item.kind}


def _claim(submission: Submission) -> dict[str, Any]:
    return {
        "id": submission.id,
        "kind": submission.kind,
        "level": submission.level,
        "prior": submission.prior,
        "opened_at": shown.instant(submission.opened_at),
        "received_at": shown.instant(submission.received_at),
        "action": submission.ruling.action if submission.ruling else None,
        "sent": submission.snapshot.model_dump(mode="json") if submission.snapshot else None,
        "errors": [error.model_dump() for error in submission.errors],
        "interim": [_word(word) for word in submission.interim.items] if submission.interim else [],
    }


def _wanted(document: Authorization, wanted: Wanted) -> dict[str, Any]:
    """What the payer asked for, whether it still waits for it, and which documents that are here would answer it."""
    waits = wanted in document.asked_of_us
    there = wanted.met_by(document.attachments) if waits else wanted.attachments
    return {**wanted.model_dump(mode="json"), "outstanding": waits, "attachments": list(there)}


def _differences(document: Authorization) -> list[dict[str, Any]]:
    """What was granted otherwise than asked for by the decision that stands, item by item."""
    if document.current is None:
        return []
    return [each.model_dump(mode="json") for each in differing(document, document.current)]


def _word(word: ItemRuling) -> dict[str, Any]:
    return word.model_dump(mode="json", include=set(ItemRuling.model_fields), exclude={"units"}) | {
        "units_granted": word.units
    }


def _units(document: Authorization) -> dict[str, int]:
    """What an approval has left: of those granted, what visits used and what is booked."""
    whole, used, planned = lifetime.units(document)
    return {"granted": whole, "used": used, "booked": planned, "remaining": max(whole - used, 0)}


def _visit(document: Authorization, visit: Visit) -> dict[str, Any]:
    return {
        "appointment_id": visit.appointment_id,
        "start": shown.instant(visit.start),
        "status": visit.status,
        "cover": lifetime.cover(document, visit) if visit.status is VisitStatus.BOOKED else None,
        "told": visit.told is not None,
    }


def _denial(document: Authorization) -> dict[str, Any] | None:
    """The denial or rejection that stands: what it means, and what can be done about it until when."""
    denial, talk = document.denial, document.talk
    if (
        denial is None
        or document.state not in CONTESTED
        or (document.state is State.SUBMITTING and not denial.rejected)
    ):
        return None
    return {
        "claim_id": denial.claim_id,
        "track": denial.track,
        "rejected": denial.rejected,
        "reasons": list(denial.reasons),
        "since": shown.instant(denial.since),
        "corrections": [
            {"code": c.code, "path": c.path, "follow_up": c.follow_up, "item": c.item, "done": c.done_at is not None}
            for c in denial.corrections
        ],
        "appeal": {
            "level": denial.level,
            "name": denial.level_name,
            "file_by": denial.file_by.isoformat() if denial.file_by else None,
            "expedited": denial.expedited,
            "evidence": list(denial.evidence),
            "lacking": list(denial.lacking),
        },
        "peer_to_peer": _talk(talk) if talk is not None and talk.claim_id == denial.claim_id else None,
    }


def _talk(talk: PeerToPeer) -> dict[str, Any]:
    return {
        "id": talk.id,
        "clinician_id": talk.clinician_id,
        "requested_at": shown.instant(talk.requested_at),
        "not_after": shown.instant(talk.not_after),
        "offers": [_time(offer) for offer in talk.offers],
        "booked": _time(talk.booked) if talk.booked else None,
        "outcome": talk.outcome,
    }


def _time(offer: Offer) -> dict[str, Any]:
    return {"start": shown.instant(offer.start), "end": shown.instant(offer.end)}


def _ruling(ruling: Ruling) -> dict[str, Any]:
    return {
        "claim_id": ruling.claim_id,
        "action": ruling.action,
        "number": ruling.number,
        "valid_from": ruling.valid_from.isoformat() if ruling.valid_from else None,
        "valid_to": ruling.valid_to.isoformat() if ruling.valid_to else None,
        "units_granted": ruling.units,
        "reasons": list(ruling.reasons),
        "human_reviewed": ruling.human_reviewed,
        "items": [_word(word) for word in ruling.items],
        "decided_at": shown.instant(ruling.decided_at),
        "source": ruling.source,
        "taken_at": shown.instant(ruling.taken_at),
    }

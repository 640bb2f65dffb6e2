"""The HTTP side of prior authorization: what coordinators see and do; the doors for payers stand in ``payers``."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import Query

from services.prior_authorization import fhir_api, letters, listing, payers, requirements
from services.prior_authorization.bodies import (
    AppealBody,
    CancelBody,
    EvidenceBody,
    ExtendBody,
    ResubmitBody,
    TalkBody,
    TalkEnd,
    TalkTime,
)
from services.prior_authorization.fhir import Asker
from services.prior_authorization.letters import LetterKind
from services.prior_authorization.model import Authorization, Member, RuleBook, State
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
from services.prior_authorization.model.denials import Offer
from services.prior_authorization.model.evidence import (
    Contents,
    KeepContents,
    contents_id,
    keep,
)
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
from services.prior_authorization.pas.subscriptions import Secrets
from services.prior_authorization.showing import Decided, clock, summary, view
from shared.kit.api import Call, CallContext, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.errors import Flaw, Invalid
from shared.kit.store.port import EPOCH

READERS = frozenset({Role.COORDINATOR, Role.CLINICIAN, Role.SCHEDULER, Role.AUDITOR, Role.OPERATOR, Role.SERVICE})
CHASERS = frozenset({Role.COORDINATOR})
WRITERS = frozenset({Role.COORDINATOR, Role.CLINICIAN})
"""Who may read a letter: it bears the member's name."""

_AHEAD = timedelta(days=366)
"""Further than any limit of a payer reaches."""

_SAMPLE = 50
"""How many of a payer's requests tell how it decides. Ids follow from a hash, so these are any of them."""

_KNOWN_PAYERS = 10
"""Of so many payers on one worklist the history is read; of the others the time alone tells."""

Limit = Annotated[int, Query(ge=1, le=200)]


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


async def _history(call: CallContext, payer_id: str) -> list[Decided]:
    """How the payer decided what it was asked."""
    found: list[Decided] = []
    for document in await call.page(Authorization, {"payer_id": payer_id, "breaches_at": None}, limit=_SAMPLE):
        running, held = document.clock, document.held
        if running is not None and held is not None and held.ruling is not None:
            found.append((held.kind, document.expedited, running.spent(held.ruling.decided_at)))
    return found

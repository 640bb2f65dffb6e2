"""What people see of an authorization: ids and codes only, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.prior_authorization import requirements
from services.prior_authorization.model import Authorization, Item, Kind, State, lifetime
from services.prior_authorization.model.answers import ItemRuling, Ruling
from services.prior_authorization.model.authorization import Submission
from services.prior_authorization.model.clocks import outlook
from services.prior_authorization.model.deciding import differing
from services.prior_authorization.model.denials import Offer, PeerToPeer
from services.prior_authorization.model.visits import Visit, VisitStatus
from services.prior_authorization.model.wanted import Wanted
from shared.kit import shown

CONTESTED = frozenset({State.SUBMITTING, State.DENIED, State.APPEALING, State.DENIED_FINAL})


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

"""Parks what came in a payer's name and was refused: that it came, and why; nothing of what it said."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from fastapi import Request

from services.prior_authorization.model import Authorization
from services.prior_authorization.model.refused import BadInput, NoteRefusal, Refusal, bad_input_key, note_refusal
from shared.kit.api import CallContext, Observer
from shared.kit.errors import DomainError

SELDOM = timedelta(seconds=10)
"""How often what nobody vouched for is noted, so that a stranger cannot fill the store."""

_OURS = frozenset({429, 500, 503})
"""Refusals that are not the caller's fault."""


def parked() -> Observer:
    """Notes the refusals of a route whose address names a payer; only of payers that were ever asked anything."""
    last: datetime | None = None

    async def note(call: CallContext, request: Request, refusal: DomainError) -> None:
        nonlocal last
        vouched = bool(call.caller.roles)
        if refusal.status in _OURS or (not vouched and last is not None and call.now - last < SELDOM):
            return
        payer_id = str(request.path_params.get("payer_id"))
        if not vouched:
            last = call.now
        if not await call.find(Authorization, "payer_id", payer_id, limit=1):
            return
        command = NoteRefusal(payer_id, _kept(refusal, call, await request.body() if vouched else None))
        await call.put(BadInput, bad_input_key(payer_id), command, note_refusal, answer=lambda kept: {})

    return note


def shown(kept: BadInput | None) -> list[dict[str, object]]:
    """What is parked, the newest first."""
    return [each.model_dump(mode="json") for each in reversed(kept.refusals)] if kept is not None else []


def _kept(refusal: DomainError, call: CallContext, content: bytes | None) -> Refusal:
    """A refusal as it is kept: our own words for it, and what tells one content from another."""
    flaw = next(iter(refusal.flaws), None)
    return Refusal(
        reason=refusal.slug,
        path=flaw.path if flaw is not None else None,
        what=flaw.reason if flaw is not None else refusal.detail,
        caller=call.caller.subject if content is not None else None,
        digest=hashlib.sha256(content).hexdigest() if content is not None else None,
        size=len(content) if content is not None else None,
        first_at=call.now,
        last_at=call.now,
    )

"""The doors for payers: their notifications, our subscriptions at them, and what was refused in their name."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Annotated, Any

from fastapi import Path, Request

from services.prior_authorization import parking
from services.prior_authorization.model import Authorization, Payer, RuleBook
from services.prior_authorization.model.answers import PayerAnswer
from services.prior_authorization.model.authorization import CLAIM_FIELDS
from services.prior_authorization.model.notified import TakeNotification, take_notification, unusable_for
from services.prior_authorization.model.payer import HearPayer, hear, payer_key, worth_noting
from services.prior_authorization.model.refused import BadInput
from services.prior_authorization.model.subscription import Subscribe, Subscription, subscribe, subscription_key
from services.prior_authorization.pas.reading import Notification, read_notification
from services.prior_authorization.pas.subscriptions import PROOF_HEADER, Secrets
from shared.kit import shown
from shared.kit.api import Call, Reply, Routes
from shared.kit.auth import Role
from shared.kit.errors import Flaw, Forbidden, Invalid, NotFound

READERS = frozenset({Role.COORDINATOR, Role.CLINICIAN, Role.SCHEDULER, Role.AUDITOR, Role.OPERATOR, Role.SERVICE})

PayerId = Annotated[str, Path(pattern=r"^[A-Za-z0-9.-]{1,64}$")]


def routes(rules: RuleBook, notifier: str, secrets: Secrets) -> Routes:
    """The routes under ``/payers``; ``notifier`` may notify for any payer, ``secrets`` are our subscriptions'."""
    found = Routes(prefix="/payers", tags=("payers",))

    @found.put("/{payer_id}/subscription", roles={Role.OPERATOR, Role.COORDINATOR})
    async def subscribed(payer_id: PayerId, call: Call) -> Reply:
        """Have our subscription registered at the payer, and renewed before it ends. 409 where it does not notify."""
        key = subscription_key(payer_id)
        return await call.put(
            Subscription, key, Subscribe(payer_id), partial(subscribe, rules), answer=subscription_view
        )

    @found.get("/{payer_id}/subscription", roles=READERS)
    async def shown_subscription(payer_id: PayerId, call: Call) -> Reply:
        """How our subscription at the payer stands."""
        document = await call.read(Subscription, subscription_key(payer_id))
        return call.show(document, subscription_view(document))

    @found.get("/{payer_id}/refused-notifications", roles={Role.OPERATOR, Role.COORDINATOR, Role.AUDITOR})
    async def refused_ones(payer_id: PayerId, call: Call) -> Reply:
        """What came in the payer's name and was refused: why, when, how often; nothing of what it said."""
        kept = await call.find(BadInput, "payer_id", payer_id, limit=1)
        return Reply(200, {"refused": parking.shown(kept[0] if kept else None)})

    @found.post("/{payer_id}/notifications", roles={Role.SERVICE}, refused=parking.parked())
    async def notified(payer_id: PayerId, body: dict[str, Any], request: Request, call: Call) -> Reply:
        """A PAS subscription notification. Taking the same one again changes nothing.

        403 where the caller does not speak for this payer or lacks its subscription's secret, 404 where it answers no
        claim that this payer was sent, 422 where it is malformed or cannot be used: nothing is changed then but the
        record of what was refused, and the payer's own retry or our next inquiry brings it again.
        """
        if call.caller.subject not in (notifier, f"payer:{payer_id}"):
            raise Forbidden("this caller does not speak for this payer")
        if secrets.wanted(payer_id):
            await _check_secret(call, secrets, payer_id, request.headers.get(PROOF_HEADER))
        notification = read_notification(body)
        key = _key(notification, await request.body())
        known = [await _addressed(call, payer_id, answer, place) for place, answer in enumerate(notification.answers)]
        for document, answer in known:
            reason = unusable_for(document, answer, call.now)
            if reason is not None:
                raise Invalid("The answer cannot be used", flaws=[Flaw("ClaimResponse", reason)])
        for document, answer in known:
            await call.change(Authorization, document.id, TakeNotification(answer, key), take_notification)
        await _hear(call, payer_id, active=notification.active)
        return Reply(200, {"taken": [document.id for document, _ in known]})

    return found


async def _check_secret(call: Call, secrets: Secrets, payer_id: str, given: str | None) -> None:
    """Raises Forbidden without the secret of the subscription that stands, or of the one that is being asked for."""
    kept = await call.find(Subscription, "payer_id", payer_id, limit=1)
    ends = {kept[0].ends_at, kept[0].until} if kept else set()
    if not secrets.proves(payer_id, given, ends):
        raise Forbidden("this is not the secret of our subscription at this payer")


def _key(notification: Notification, content: bytes) -> str | None:
    """What makes two notifications one: subscription, event numbers and content. Numbers alone may begin anew."""
    if not notification.events:
        return None
    numbers = ",".join(str(number) for number in notification.events)
    named = f"{notification.subscription}#{numbers}#".encode()
    return hashlib.sha256(named + content).hexdigest()[:32]


async def _addressed(call: Call, payer_id: str, answer: PayerAnswer, place: int) -> tuple[Authorization, PayerAnswer]:
    """The authorization that an answer is about. Raises NotFound where this payer was sent no such claim."""
    for claim in answer.claims:
        for field in CLAIM_FIELDS:
            for document in await call.find(Authorization, field, claim, limit=2):
                if document.payer_id == payer_id:
                    return document, answer
    path = f"Bundle.entry[{place + 1}].resource.request"
    raise NotFound("this payer was sent no such claim", flaws=[Flaw(path, "names no claim of ours")])


async def _hear(call: Call, payer_id: str, *, active: bool) -> None:
    """Note the sign of life; only of payers that were ever asked anything, so that strangers leave nothing behind."""
    if not await call.find(Authorization, "payer_id", payer_id, limit=1):
        return
    key = payer_key(payer_id)
    command = HearPayer(payer_id, active)
    heard = await call.find(Payer, "payer_id", payer_id, limit=1)
    if worth_noting(heard[0] if heard else None, command, call.now):
        await call.put(Payer, key, command, hear, answer=lambda payer: {"state": payer.state})


def subscription_view(document: Subscription) -> dict[str, Any]:
    """How our subscription at a payer stands."""
    return {
        "payer_id": document.payer_id,
        "state": document.status,
        "ends_at": shown.instant(document.ends_at),
        "reason": document.reason,
    }

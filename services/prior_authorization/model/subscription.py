"""Our subscription at a payer to its decisions (PAS 2.2.1, "Subscription"): asked for, renewed before its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.prior_authorization.model.answers import Rejected, Unreadable
from services.prior_authorization.model.budget import retry_in
from services.prior_authorization.model.rules import RuleBook
from shared.kit.decisions import Due, Facts, Refused, Unanswered
from shared.kit.document import Document, derived_id
from shared.kit.errors import Conflict

LASTS = timedelta(days=90)
"""For how long a subscription is asked for at a time."""

RENEWED = timedelta(days=7)
"""How long before its end it is renewed: time enough for a payer that is away over a weekend."""

LOOK_AGAIN = timedelta(days=1)
"""When a payer that would not have it is asked again."""


class SubscriptionState(StrEnum):
    """Where it stands: FHIR R4 Subscription.status, as far as it is ours to tell."""

    REQUESTED = "requested"
    ACTIVE = "active"
    ERROR = "error"
    OFF = "off"


class Subscription(Document):
    """The one at a payer; the id follows from ``payer_id``. ``reference`` is the payer's id, ``ends_at`` its end.

    Has no states of its own to go through: how it stands follows from what the payer said last.
    """

    collection = "subscription"
    indexes = ("payer_id",)

    payer_id: str
    reference: str | None = None
    until: datetime | None = None
    """The end that the call under way asks for."""
    ends_at: datetime | None = None
    tries: int = 0
    reason: str | None = None
    """Why the last call led to nothing: a code."""
    refused: bool = False
    """Whether the payer would not have it."""
    off: bool = False
    """Whether it is not wanted any more, and runs out."""

    @property
    def status(self) -> SubscriptionState:
        """How it stands."""
        if self.off:
            return SubscriptionState.OFF
        if self.refused:
            return SubscriptionState.ERROR
        return SubscriptionState.REQUESTED if self.ends_at is None else SubscriptionState.ACTIVE


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Have this payer notify us."""

    payer_id: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The payer has it, under this id."""

    reference: str


Outcome = Subscribed | Rejected | Unreadable | Refused | Unanswered


def subscription_key(payer_id: str) -> str:
    """The id of our subscription at a payer."""
    return derived_id("subscription", payer_id)


def subscribe(
    rules: RuleBook, document: Subscription | None, command: Subscribe, facts: Facts, now: datetime
) -> Subscription:
    """Ask for it, or for it again. Raises Conflict where the rules do not say that the payer notifies."""
    if not rules.notifies(command.payer_id):
        raise Conflict("the rules do not say that this payer notifies")
    if document is None:
        document = Subscription(id=subscription_key(command.payer_id), payer_id=command.payer_id)
    document.off = False
    document.wake("subscribe", now)
    return document


def prepare_subscribe(rules: RuleBook, document: Subscription, due: Due, facts: Facts, now: datetime) -> Subscription:
    """Intend to register or renew it; where the rules no longer say that the payer notifies, let it run out."""
    if not rules.notifies(document.payer_id):
        document.off = True
        return document
    document.intend("subscribe", now)
    if document.tries == 0 or document.until is None or document.until - now < RENEWED:
        # A call that is repeated asks for the same end: its secret follows from it, and the payer may have it already.
        document.until = now + LASTS
    return document


def may_subscribe(document: Subscription, facts: Facts, now: datetime) -> bool:
    """Whether it is still wanted when it is about to be asked for."""
    return not document.off


def settle_subscribe(document: Subscription, outcome: Outcome, facts: Facts, now: datetime) -> Subscription:
    """Fold the payer's answer: it stands until its end, or is asked for again."""
    if document.off:
        return document
    if isinstance(outcome, Subscribed):
        _stands(document, outcome, now)
        return document
    document.reason = outcome.reason
    document.tries += 1
    if isinstance(outcome, Rejected):
        # What it would not renew it may take as a new one.
        document.reference = None
        document.refused = True
        document.wake("subscribe", now + LOOK_AGAIN)
        return document
    named = outcome.retry_after if isinstance(outcome, Refused) else None
    document.wake("subscribe", now + retry_in(document.id, document.tries, "subscribe", named))
    return document


def _stands(document: Subscription, outcome: Subscribed, now: datetime) -> None:
    document.refused = False
    document.reference, document.ends_at = outcome.reference, document.until
    document.reason, document.tries = None, 0
    document.wake("subscribe", (document.ends_at or now + LASTS) - RENEWED)

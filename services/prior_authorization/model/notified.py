"""What a payer's notification leads to: an answer to any claim that was ever sent, also to the calling off of one."""

from __future__ import annotations

from datetime import datetime

from services.prior_authorization.model.answers import Answered, PayerAnswer, Source, Unusable, weigh
from services.prior_authorization.model.authorization import Authorization
from services.prior_authorization.model.calling import settle_cancel, take_rejection
from services.prior_authorization.model.deciding import Effect, take, weigh_for
from shared.kit.decisions import Facts

_KEPT_KEYS = 20
"""How many notifications an authorization remembers."""


class TakeNotification:
    """The payer notified of an answer, by the notification ``key``. Not a model: it is decided on, never stored."""

    def __init__(self, answer: PayerAnswer, key: str | None = None) -> None:
        self.answer, self.key = answer, key


def unusable_for(document: Authorization, answer: PayerAnswer, now: datetime) -> str | None:
    """Why an answer would change nothing, for the payer to hear; None where it can be used. Errors alone can be."""
    submission = document.submission(answer.claims)
    if _of_cancellation(document, answer):
        weighed = weigh(answer, document.cancel_id or "", document.items, Source.NOTIFICATION, now)
    elif submission is None:
        return "other-claim"
    else:
        weighed = weigh_for(document, submission, answer, Source.NOTIFICATION, now)
    return weighed.reason if isinstance(weighed, Unusable) and not weighed.rejects else None


def take_notification(document: Authorization, command: TakeNotification, facts: Facts, now: datetime) -> Authorization:
    """Fold a notified answer onto the authorization; that of a notification it has heard changes nothing."""
    if command.key is not None and command.key in document.notified:
        return document
    if _of_cancellation(document, command.answer):
        settle_cancel(document, Answered(command.answer), facts, now)
    elif take(document, command.answer, Source.NOTIFICATION, now) is Effect.UNUSABLE:
        take_rejection(document, command.answer, Source.NOTIFICATION, now)
    if command.key is not None:
        document.notified = (*document.notified, command.key)[-_KEPT_KEYS:]
    return document


def _of_cancellation(document: Authorization, answer: PayerAnswer) -> bool:
    """Whether what it answers first of ours is that a claim was called off."""
    for claim in answer.claims:
        if claim == document.cancel_id:
            return True
        if document.submission((claim,)) is not None:
            return False
    return False

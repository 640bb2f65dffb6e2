"""Referrals that are over: no visit is wanted for them any more, neither one that stands nor one that is yet to come.

Appointments hear of it (``ReferralOver``), and look here before they ask for a slot or take one: whichever of the two
is written second sees the first.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from shared.contracts.referrals import ReferralCancelled, ReferralClosed, ReferralFailed, ReferralRejected
from shared.contracts.scheduling import ReferralOver
from shared.kit.decisions import Facts
from shared.kit.document import Document

ReferralEnded = ReferralCancelled | ReferralClosed | ReferralFailed | ReferralRejected

_REASONS: dict[type[ReferralEnded], str] = {
    ReferralCancelled: "referral-cancelled",
    ReferralClosed: "referral-closed",
    ReferralFailed: "referral-failed",
    ReferralRejected: "referral-rejected",
}


class OverState(StrEnum):
    """It is only kept."""

    OVER = "over"


class EndedReferral(Document):
    """A referral that is over; its id is the referral's. ``reason`` is a code."""

    collection: ClassVar[str] = "ended_referral"
    transitions: ClassVar[dict[OverState, frozenset[OverState]]] = {OverState.OVER: frozenset()}
    terminal: ClassVar[frozenset[OverState]] = frozenset({OverState.OVER})

    state: OverState = OverState.OVER
    reason: str


def end(known: EndedReferral | None, event: ReferralEnded, _: Facts, __: datetime) -> EndedReferral:
    """Keep that a referral is over, and tell its appointments."""
    if known is not None:
        return known
    ended = EndedReferral(id=event.referral_id, reason=_REASONS[type(event)])
    ended.record(ReferralOver(referral_id=ended.id))
    return ended

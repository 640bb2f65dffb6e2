"""What a person asks of a referral: what is missing, since when, who owes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.referrals.model.referral import Referral
from services.referrals.model.stages import Owner, State


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is owed. ``what`` is a code, or the FHIR path of a field; ``deadline`` is that of the wait."""

    what: str
    since: datetime
    owner: str
    deadline: datetime | None = None


def missing(referral: Referral) -> tuple[Missing, ...]:
    """Everything owed now, what holds the referral up first."""
    wait = referral.wait
    if wait is None:
        return ()
    held_up = tuple(Missing(what, wait.since, wait.owner, wait.deadline) for what in _held_up_by(referral, wait.reason))
    return held_up + _also(referral, wait.since)


def _held_up_by(referral: Referral, reason: str) -> tuple[str, ...]:
    if referral.state is State.AWAITING_PATIENT and referral.missing_fields:
        return referral.missing_fields
    if referral.state is State.AWAITING_PACKET:
        return tuple(f"packet.{kind.value}" for kind in referral.wanting)
    return (reason,)


def _also(referral: Referral, since: datetime) -> tuple[Missing, ...]:
    """What is owed beside: it does not hold up the present stage, but a later one, or good order."""
    fields = () if referral.state is State.AWAITING_PATIENT else referral.missing_fields
    items = () if referral.state is State.AWAITING_PACKET or referral.sealed or referral.attended else referral.wanting
    asked_at = referral.requested_at
    told = referral.accepted_at is not None and referral.acknowledged_on is None and not referral.attended
    return (
        *(Missing(field, asked_at, Owner.COORDINATOR) for field in fields),
        *(Missing(f"packet.{kind.value}", asked_at, Owner.CLINICIAN) for kind in items),
        *((Missing("patient-acknowledgement", referral.accepted_at or since, Owner.COORDINATOR),) if told else ()),
    )

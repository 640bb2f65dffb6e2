"""Due work of referrals: the one deadline of whatever a referral waits for."""

from __future__ import annotations

from services.referrals.model import Referral, escalate
from shared.kit.jobs import Jobs, timer


def jobs() -> tuple[Jobs, ...]:
    """The job tables; referrals make no outside calls."""
    return (Jobs(Referral, timer("deadline", escalate)),)

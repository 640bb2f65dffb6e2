"""What intake does when time comes: asks payers, and notices what nobody did in time."""

from __future__ import annotations

from services.intake import model
from services.intake.eligibility import Eligibility
from services.intake.model.verification import VERDICT, VERIFY, wanted
from shared.kit.jobs import Jobs, call, timer


def jobs(intake: model.Intake, eligibility: Eligibility) -> tuple[Jobs, ...]:
    """The job table. Payers answer the same question the same way, so a lost answer is asked for again."""
    return (
        Jobs(
            model.Patient,
            call(
                VERIFY,
                prepare=intake.prepare_verification,
                check=wanted,
                perform=eligibility.verify,
                settle=intake.settle_verification,
                idempotent=True,
            ),
            timer(VERDICT, intake.miss_verdict),
            timer("deadline", intake.miss_completion),
        ),
    )

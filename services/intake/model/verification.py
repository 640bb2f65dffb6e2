"""Coverage verification: when to ask the payer, and what an answer, or none, means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from services.intake.model.patient import Coverage, Patient
from shared.contracts.intake import CoverageLapsed, CoverageStatus, CoverageUnverifiable, CoverageVerified
from shared.kit.decisions import Due, Facts, Refused, Unanswered

VERIFY = "verify"
VERDICT = "verdict"
"""The timers: asking the payer, and the day by which there must be a verdict that holds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the payer said of one revision of a coverage. ``reason`` is a code where it is not in force."""

    coverage_id: str
    revision: int
    inforce: bool
    reason: str = "not-in-force"
    valid_from: date | None = None
    valid_to: date | None = None


@dataclass(frozen=True, slots=True)
class NoVerdict:
    """The payer answered, but cannot tell. ``reason``: ``payer-unknown`` or ``not-enough-data``."""

    coverage_id: str
    revision: int
    reason: str


Outcome = Verdict | NoVerdict | Refused | Unanswered


@dataclass(frozen=True, slots=True)
class Verification:
    """The decisions on verification, with the durations a deployment may set.

    A verdict holds for ``holds_for``; the payer is asked again after ``renewed_after``, before it ages. A first verdict
    is owed within ``owed_within``. Where the payer said no or could not tell, it is asked again after
    ``asked_again_after``. A call that got no answer is made again after ``retry_first``, doubling to ``retry_most``.
    ``grace`` is how long a call that has begun may hold the deadline back.
    """

    holds_for: timedelta = timedelta(days=30)
    renewed_after: timedelta = timedelta(days=25)
    owed_within: timedelta = timedelta(days=3)
    asked_again_after: timedelta = timedelta(days=7)
    retry_first: timedelta = timedelta(minutes=1)
    retry_most: timedelta = timedelta(hours=4)
    grace: timedelta = timedelta(hours=6)

    def begin(self, patient: Patient, now: datetime) -> None:
        """The coverage that pays first is new or another one: ask, or say at once why nobody can be asked."""
        patient.abandon(VERIFY)
        patient.rest(VERIFY, VERDICT)
        coverage = patient.coverage
        if coverage is None:
            patient.record(CoverageUnverifiable(patient_id=patient.id, reason="no-coverage", as_of=now))
            return
        if not coverage.verifiable:
            _unverifiable(patient, coverage, "not-enough-data", now)
            return
        coverage.status, coverage.reason, coverage.as_of, coverage.tries = CoverageStatus.UNVERIFIED, None, None, 0
        coverage.inforce_from = coverage.inforce_to = None
        patient.wake(VERIFY, now)
        patient.wake(VERDICT, now + self.owed_within)

    def prepare(self, patient: Patient, due: Due, facts: Facts, now: datetime) -> Patient:
        """Intend the call, where there is a coverage to ask about."""
        if wanted(patient, facts, now):
            patient.intend(VERIFY, now)
        return patient

    def settle(self, patient: Patient, outcome: Outcome, facts: Facts, now: datetime) -> Patient:
        """Take the answer in. One about an earlier revision says nothing; its successor is asked for already."""
        coverage = patient.coverage
        if patient.ended or coverage is None:
            return patient
        if isinstance(outcome, Refused | Unanswered):
            coverage.tries += 1
            patient.wake(VERIFY, now + self._pause(coverage.tries, outcome))
            return patient
        if (outcome.coverage_id, outcome.revision) != (coverage.id, coverage.revision):
            return patient
        coverage.tries = 0
        if isinstance(outcome, NoVerdict):
            _unverifiable(patient, coverage, outcome.reason, now)
            self._ask_again(patient, now)
        elif outcome.inforce:
            self._verified(patient, coverage, outcome, now)
        else:
            self._lapsed(patient, coverage, outcome, now)
        return patient

    def unanswered(self, patient: Patient, due: Due, facts: Facts, now: datetime) -> Patient:
        """The day has come by which a verdict was owed. A call just under way is given ``grace``."""
        coverage = patient.coverage
        if patient.ended or coverage is None or not coverage.verifiable:
            return patient
        began = self._began(patient, coverage, due, now)
        if began is not None and now < began + self.grace:
            patient.wake(VERDICT, began + self.grace)
            return patient
        _unverifiable(patient, coverage, "payer-unreachable", now)
        return patient

    def _began(self, patient: Patient, coverage: Coverage, due: Due, now: datetime) -> datetime | None:
        """Since when a call is under way: one intended, or one that was due as early and is only about to be made."""
        attempt, asks_at = patient.attempts.get(VERIFY), patient.timers.get(VERIFY)
        if attempt is not None:
            return attempt.since
        about_to = asks_at is not None and asks_at <= due.at and coverage.tries == 0
        return now if about_to else None

    def _pause(self, tries: int, outcome: Refused | Unanswered) -> timedelta:
        """How long to wait before the next call: doubling, and never less than the payer asked for."""
        pause = min(self.retry_first * float(2 ** min(tries - 1, 20)), self.retry_most)
        named = outcome.retry_after if isinstance(outcome, Refused) else None
        return pause if named is None else max(pause, timedelta(seconds=named))

    def _ask_again(self, patient: Patient, now: datetime) -> None:
        patient.rest(VERDICT)
        patient.wake(VERIFY, now + self.asked_again_after)

    def _verified(self, patient: Patient, coverage: Coverage, said: Verdict, now: datetime) -> None:
        known = (coverage.status, coverage.inforce_from, coverage.inforce_to)
        coverage.status, coverage.reason, coverage.as_of = CoverageStatus.ACTIVE, None, now
        coverage.inforce_from, coverage.inforce_to = said.valid_from, said.valid_to
        patient.wake(VERIFY, now + self.renewed_after)
        patient.wake(VERDICT, now + self.holds_for)
        if known == (CoverageStatus.ACTIVE, said.valid_from, said.valid_to) or coverage.payer_id is None:
            return
        patient.record(
            CoverageVerified(
                patient_id=patient.id,
                coverage_id=coverage.id,
                payer_id=coverage.payer_id,
                plan=coverage.plan,
                valid_from=said.valid_from,
                valid_to=said.valid_to,
                as_of=now,
            )
        )

    def _lapsed(self, patient: Patient, coverage: Coverage, said: Verdict, now: datetime) -> None:
        known = (coverage.status, coverage.reason)
        coverage.status, coverage.reason, coverage.as_of = CoverageStatus.LAPSED, said.reason, now
        coverage.inforce_from, coverage.inforce_to = said.valid_from, said.valid_to
        self._ask_again(patient, now)
        if known == (CoverageStatus.LAPSED, said.reason) or coverage.payer_id is None:
            return
        patient.record(
            CoverageLapsed(
                patient_id=patient.id,
                coverage_id=coverage.id,
                payer_id=coverage.payer_id,
                reason=said.reason,
                as_of=now,
            )
        )


def wanted(patient: Patient, facts: Facts, now: datetime) -> bool:
    """Whether there is still a coverage to ask the payer about."""
    return not patient.ended and patient.coverage is not None and patient.coverage.verifiable


def _unverifiable(patient: Patient, coverage: Coverage, reason: str, now: datetime) -> None:
    known = (coverage.status, coverage.reason)
    coverage.status, coverage.reason, coverage.as_of = CoverageStatus.UNVERIFIABLE, reason, now
    if known == (CoverageStatus.UNVERIFIABLE, reason):
        return
    patient.record(CoverageUnverifiable(patient_id=patient.id, coverage_id=coverage.id, reason=reason, as_of=now))

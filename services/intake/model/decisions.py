"""The decisions on a registration. Each change is compared with what stood before; only a change is announced."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.intake.model.completeness import missing_of
from services.intake.model.patient import (
    Patient,
    Provenance,
    Revocation,
    Source,
    State,
)
from services.intake.model.people import person_of
from services.intake.model.statements import (
    ConfirmFact,
    Correct,
    EnterInError,
    Register,
    RevokeProxy,
    Statement,
    VerifyCoverage,
)
from services.intake.model.taking import Said, note, take
from services.intake.model.verification import VERDICT, VERIFY, Outcome, Verification
from shared.contracts.intake import (
    Barrier,
    BarrierRecorded,
    PatientCompleted,
    PatientIncomplete,
    PatientRegistered,
    PersonChanged,
)
from shared.contracts.notifications import ChannelRevoked
from shared.kit.decisions import Due, Facts
from shared.kit.document import Document
from shared.kit.errors import Conflict, Flaw, NotFound


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may wait."""

    complete_within: timedelta = timedelta(days=14)
    verification: Verification = field(default_factory=Verification)


@dataclass(frozen=True, slots=True)
class _Before:
    """What a change is compared with."""

    state: State | None
    missing: tuple[str, ...]
    person: PersonChanged | None
    needs: frozenset[Barrier]
    coverage: tuple[str, int] | None

    @classmethod
    def of(cls, patient: Patient) -> _Before:
        needs = frozenset(need.barrier for need in patient.needs)
        return cls(patient.state, patient.missing, person_of(patient), needs, _asked_about(patient))


@dataclass(frozen=True, slots=True)
class Intake:
    """The decisions of the requests and of time, with the durations a deployment may set."""

    timing: Timing = Timing()

    # -- requests -------------------------------------------------------------------------------------------

    def register(self, patient: Patient | None, command: Register, facts: Facts, now: datetime) -> Patient:
        """Open a registration, complete or not; or correct the one that is there. Raises Conflict where it ended."""
        said = Said(command.by, command.source, now)
        if patient is not None:
            return self._change(patient, command.statement, said)
        origin = Provenance(source=command.source, by=command.by, at=now, reference=command.reference)
        patient = Patient(id=command.id, registered_at=now, provenance=origin)
        take(patient, command.statement, said, correcting=False)
        patient.missing = missing_of(patient)
        patient.record(
            PatientRegistered(
                patient_id=patient.id,
                complete=not patient.missing,
                missing=patient.missing,
                language=patient.speaks,
            )
        )
        if patient.missing:
            self._await_completion(patient, now)
        else:
            patient.move(State.COMPLETE)
        self._announce(patient, _Before(None, (), None, frozenset(), None), now, coverage_is_news=True)
        return patient

    def correct(self, patient: Patient, command: Correct, facts: Facts, now: datetime) -> Patient:
        """Complete or correct a registration, keeping what each corrected field was. Raises Conflict where it ended."""
        return self._change(patient, command.statement, Said(command.by, command.source, now))

    def verify_coverage(self, patient: Patient, command: VerifyCoverage, facts: Facts, now: datetime) -> Patient:
        """Ask the payer now. Raises Conflict where there is not enough to ask with."""
        _refuse_ended(patient)
        if patient.coverage is None or not patient.coverage.verifiable:
            missing = [Flaw(path, "is missing") for path in patient.missing if path.startswith("Coverage.")]
            raise Conflict("The coverage lacks what the payer must be told", flaws=missing)
        patient.wake(VERIFY, now)
        return patient

    def confirm_fact(self, patient: Patient, command: ConfirmFact, facts: Facts, now: datetime) -> Patient:
        """A clinician confirms a clinical fact; confirming again changes nothing. Raises NotFound."""
        _refuse_ended(patient)
        fact = next((fact for fact in patient.facts if fact.id == command.fact_id), None)
        if fact is None:
            raise NotFound("There is no such fact about this patient")
        if fact.unconfirmed:
            fact.confirmed_by, fact.confirmed_at = command.by, now
        return patient

    def revoke_proxy(self, patient: Patient, command: RevokeProxy, facts: Facts, now: datetime) -> Patient:
        """Take a proxy's rights back at once; doing so again changes nothing. Raises NotFound."""
        _refuse_ended(patient)
        proxy = next((proxy for proxy in patient.proxies if proxy.id == command.proxy_id), None)
        if proxy is None:
            raise NotFound("There is no such proxy of this patient")
        if proxy.revoked_at is None:
            proxy.revoked_at = now
            note(patient, Said(command.by, Source.JSON, now), f"RelatedPerson({proxy.id}).active", True, False)
        return patient

    def enter_in_error(self, patient: Patient, command: EnterInError, facts: Facts, now: datetime) -> Patient:
        """End a registration that should never have been, and have every reader forget the person.

        Only ids, counters and the state remain. Raises IllegalTransition where it ended before.
        """
        patient.move(State.ENTERED_IN_ERROR)
        patient.met()
        patient.rest(VERIFY, VERDICT)
        patient.abandon(VERIFY)
        blank = Patient(id=patient.id, registered_at=patient.registered_at)
        kept = {"state", "registered_at", *Document.model_fields}
        for name in type(patient).model_fields:
            if name not in kept:
                setattr(patient, name, getattr(blank, name))
        patient.missing = ("Patient",)
        patient.record(PatientIncomplete(patient_id=patient.id, missing=patient.missing))
        patient.record(PersonChanged(patient_id=patient.id, erased=True))
        return patient

    # -- time -----------------------------------------------------------------------------------------------

    def prepare_verification(self, patient: Patient, due: Due, facts: Facts, now: datetime) -> Patient:
        """Intend to ask the payer; see Verification."""
        return self.timing.verification.prepare(patient, due, facts, now)

    def settle_verification(self, patient: Patient, outcome: Outcome, facts: Facts, now: datetime) -> Patient:
        """Take in what the payer said, and tell the readers of the person."""
        before = person_of(patient)
        self.timing.verification.settle(patient, outcome, facts, now)
        _tell_readers(patient, before)
        return patient

    def miss_verdict(self, patient: Patient, due: Due, facts: Facts, now: datetime) -> Patient:
        """No verdict came in time, or the last one aged."""
        before = person_of(patient)
        self.timing.verification.unanswered(patient, due, facts, now)
        _tell_readers(patient, before)
        return patient

    def miss_completion(self, patient: Patient, due: Due, facts: Facts, now: datetime) -> Patient:
        """Nobody completed the registration in time: it stands as overdue on the worklist from now on."""
        patient.overdue(now)
        return patient

    # -- parts ----------------------------------------------------------------------------------------------

    def _change(self, patient: Patient, statement: Statement, said: Said) -> Patient:
        _refuse_ended(patient)
        before = _Before.of(patient)
        coverages = [coverage.model_copy() for coverage in patient.coverages]
        take(patient, statement, said, correcting=True)
        patient.missing = missing_of(patient)
        self._gate(patient, before, said.at)
        self._announce(patient, before, said.at, coverage_is_news=False)
        if patient.coverages != coverages and _asked_about(patient) == before.coverage:
            self._ask_about_changed(patient, said.at)
        return patient

    def _gate(self, patient: Patient, before: _Before, now: datetime) -> None:
        if not patient.missing and before.state is State.INCOMPLETE:
            patient.move(State.COMPLETE)
            patient.met()
            patient.record(PatientCompleted(patient_id=patient.id))
        elif patient.missing and before.state is State.COMPLETE:
            patient.move(State.INCOMPLETE)
            self._await_completion(patient, now)
            patient.record(PatientIncomplete(patient_id=patient.id, missing=patient.missing))
        elif patient.missing != before.missing:
            patient.record(PatientIncomplete(patient_id=patient.id, missing=patient.missing))

    def _await_completion(self, patient: Patient, now: datetime) -> None:
        patient.expect("coordinator", "registration-incomplete", now, self.timing.complete_within)

    def _announce(self, patient: Patient, before: _Before, now: datetime, *, coverage_is_news: bool) -> None:
        for need in patient.needs:
            if need.barrier not in before.needs:
                patient.record(BarrierRecorded(patient_id=patient.id, barrier=need.barrier, language=patient.speaks))
        if coverage_is_news or _asked_about(patient) != before.coverage:
            self.timing.verification.begin(patient, now)
        _tell_readers(patient, before.person)

    def _ask_about_changed(self, patient: Patient, now: datetime) -> None:
        """The plan or the dates were corrected: the same member, but the payer is asked anew."""
        if patient.coverage is not None and patient.coverage.verifiable:
            patient.abandon(VERIFY)
            patient.wake(VERIFY, now)


def revoke_channel(patient: Patient, event: ChannelRevoked, facts: Facts, now: datetime) -> Patient:
    """A person told us to stop using a channel (47 CFR 64.1200(a)(10)): recorded, and told to every reader."""
    if event.channel in patient.revoked:
        return patient
    before = person_of(patient)
    patient.revoked[event.channel] = Revocation(at=now, source=Source.REPLY)
    note(patient, Said("notifications", Source.REPLY, now), f"Consent.{event.channel}", None, "deny")
    _tell_readers(patient, before)
    return patient


def _asked_about(patient: Patient) -> tuple[str, int] | None:
    coverage = patient.coverage
    return None if coverage is None else (coverage.id, coverage.revision)


def _tell_readers(patient: Patient, before: PersonChanged | None) -> None:
    person = person_of(patient)
    if person != before:
        patient.record(person)


def _refuse_ended(patient: Patient) -> None:
    if patient.ended:
        raise Conflict("This registration was entered in error")

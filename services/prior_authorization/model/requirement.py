"""Whether a service is covered and needs approval, as CRD's coverage-information says it, and what follows from it.

The codes are those of the extension ``ext-coverage-information`` of Da Vinci CRD 2.1. It comes from the rules, or from
the payer itself: what the payer said of this member and service prevails until it expires.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from enum import StrEnum

from pydantic import BaseModel

from services.prior_authorization.model.evidence import Need
from shared.contracts.base import Coding
from shared.kit.document import Part


class Covered(StrEnum):
    """Whether the plan covers the service."""

    COVERED = "covered"
    NOT_COVERED = "not-covered"
    CONDITIONAL = "conditional"
    INDETERMINATE = "indeterminate"


class PaNeeded(StrEnum):
    """Whether approval is needed. ``performpa``: yes, and the performer must ask for it."""

    NO_AUTH = "no-auth"
    AUTH_NEEDED = "auth-needed"
    SATISFIED = "satisfied"
    PERFORMER = "performpa"
    CONDITIONAL = "conditional"
    INDETERMINATE = "indeterminate"


class DocNeeded(StrEnum):
    """Who has to supply documentation. ``no-doc`` and ``both`` are those of CRD 2.0."""

    NO_DOC = "no-doc"
    CLINICAL = "clinical"
    ADMIN = "admin"
    BOTH = "both"
    PATIENT = "patient"
    CONDITIONAL = "conditional"


class DocPurpose(StrEnum):
    """What the documentation is for."""

    WITH_PA = "withpa"
    WITH_CLAIM = "withclaim"
    WITH_ORDER = "withorder"
    RETAIN = "retain-doc"
    OTHER = "OTH"


class InfoNeeded(StrEnum):
    """What the payer would have to know to say more."""

    PERFORMER = "performer"
    LOCATION = "location"
    TIMEFRAME = "timeframe"
    CONTRACT_WINDOW = "contract-window"
    DETAIL_CODE = "detail-code"
    OTHER = "OTH"


class Authority(StrEnum):
    """Who says so."""

    RULES = "rules"
    PAYER = "payer"


class CoverageInformation(Part):
    """What is said of one service for one coverage. Codes and ids alone; ``why`` names the rule, or the assertion.

    ``expires_on`` is the last day on which it holds, ``asserted_on`` when it was said, ``reasons`` are codes.
    """

    covered: Covered = Covered.COVERED
    pa_needed: PaNeeded | None = None
    doc_needed: tuple[DocNeeded, ...] = ()
    doc_purpose: tuple[DocPurpose, ...] = ()
    info_needed: tuple[InfoNeeded, ...] = ()
    questionnaires: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    satisfied_pa_id: str | None = None
    asserted_on: date | None = None
    expires_on: date | None = None
    source: Authority
    why: str

    def contradictions(self) -> tuple[str, ...]:
        """Which of CRD's own constraints it breaks (crd-ci-q1 to q5): it cannot be meant so."""
        conditional = "conditional" in {self.covered, self.pa_needed, *self.doc_needed}
        settled = self.pa_needed in (PaNeeded.SATISFIED, PaNeeded.NO_AUTH)
        broken = {
            "questionnaire-without-doc-needed": self.questionnaires and not set(self.doc_needed) - {DocNeeded.NO_DOC},
            "pa-needed-though-not-covered": self.covered is Covered.NOT_COVERED and self.pa_needed is not None,
            "info-needed-though-not-conditional": self.info_needed and not conditional,
            "documents-for-an-approval-that-is-not-needed": settled and DocPurpose.WITH_PA in self.doc_purpose,
            "satisfied-without-number": self.pa_needed is PaNeeded.SATISFIED and not self.satisfied_pa_id,
            "number-though-not-satisfied": self.pa_needed is not PaNeeded.SATISFIED and self.satisfied_pa_id,
        }
        return tuple(name for name, is_so in broken.items() if is_so)

    def holds(self, on: date) -> bool:
        """Whether it has not expired on a day. What names no end holds until something else is said."""
        return self.expires_on is None or on <= self.expires_on

    def needs(self) -> tuple[Need, ...]:
        """The questionnaires that go with the request for approval, where the documentation is wanted for that."""
        if self.doc_purpose and DocPurpose.WITH_PA not in self.doc_purpose:
            return ()
        return tuple(Need.questionnaire(url) for url in self.questionnaires)


class Course(StrEnum):
    """What follows for a request."""

    NOT_REQUIRED = "not-required"
    SATISFIED = "satisfied"
    SEEK = "seek"
    ASK_PERSON = "ask-person"


def course(told: CoverageInformation) -> tuple[Course, str]:
    """What follows, and the code of why.

    | coverage-information | course |
    |---|---|
    | not covered, or conditionally covered | a person decides |
    | approval no-auth | none is sought |
    | approval satisfied | its number counts as approval |
    | approval conditional, or for the performer to seek | a person decides |
    | approval needed, indeterminate or not spoken of | it is sought |
    """
    if told.covered is Covered.NOT_COVERED:
        return Course.ASK_PERSON, "not-covered"
    if told.covered is Covered.CONDITIONAL:
        return Course.ASK_PERSON, "coverage-conditional"
    by_need = {
        PaNeeded.NO_AUTH: (Course.NOT_REQUIRED, told.why),
        PaNeeded.SATISFIED: (Course.SATISFIED, told.why),
        PaNeeded.PERFORMER: (Course.ASK_PERSON, "performer-seeks-approval"),
        PaNeeded.CONDITIONAL: (Course.ASK_PERSON, "approval-conditional"),
    }
    return by_need.get(told.pa_needed or PaNeeded.INDETERMINATE, (Course.SEEK, told.why))


# -- the payer's own word -------------------------------------------------------------------------------------------

_KEPT_ANSWERS = 50


class CoverageAnswer(Part):
    """What a payer said of a member's coverage and a service; ``services`` are all codes it goes by."""

    payer_id: str
    coverage_id: str
    services: tuple[Coding, ...]
    told: CoverageInformation
    taken_at: datetime


class TakeCoverage(BaseModel):
    """The payer answered what it requires for a member."""

    answers: tuple[CoverageAnswer, ...]


def standing_answer(
    answers: Iterable[CoverageAnswer], payer_id: str, coverage_id: str | None, service: Coding, on: date
) -> CoverageInformation | None:
    """What the payer said last of this service, if it still holds on a day. ``coverage_id`` None: of any coverage."""
    fitting = [
        answer.told
        for answer in answers
        if answer.payer_id == payer_id
        and (coverage_id is None or answer.coverage_id == coverage_id)
        and service in answer.services
    ]
    newest = fitting[-1] if fitting else None
    return newest if newest is not None and newest.holds(on) else None


def with_answer(answers: tuple[CoverageAnswer, ...], answer: CoverageAnswer) -> tuple[CoverageAnswer, ...]:
    """The answers with one more, in the order in which the payer gave them; it replaces what it speaks of again."""
    kept = [each for each in answers if not _replaced(each, answer)]
    late = any(_about_same(each, answer) and _later(each, answer) for each in kept)
    return tuple(kept) if late else (*kept, answer)[-_KEPT_ANSWERS:]


def _about_same(one: CoverageAnswer, other: CoverageAnswer) -> bool:
    same_cover = (one.payer_id, one.coverage_id) == (other.payer_id, other.coverage_id)
    return same_cover and bool(set(map(_key, one.services)) & set(map(_key, other.services)))


def _later(one: CoverageAnswer, other: CoverageAnswer) -> bool:
    return (one.told.asserted_on or date.min) > (other.told.asserted_on or date.min)


def _replaced(known: CoverageAnswer, by: CoverageAnswer) -> bool:
    return _about_same(known, by) and not _later(known, by)


def _key(service: Coding) -> tuple[str, str]:
    return service.system, service.code

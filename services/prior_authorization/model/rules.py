"""Which services need a payer's approval, and on what terms it is sought: rules as data, matched purely.

The text of a rules file (TOML) becomes a ``RuleBook``; ``RuleBook.assess`` answers for one request. The first rule
that matches decides, in the order of the file; where none does, approval is sought (``default``), because a visit
without a needed approval is paid by the patient, while asking for one that is not needed costs an answer NA.
"""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from services.prior_authorization.model.clocks import (
    Calendar,
    Clock,
    ClockTerms,
    Limit,
    LineOfBusiness,
    applying,
    in_force,
)
from services.prior_authorization.model.evidence import Canonical, EvidenceRule, Need, together
from services.prior_authorization.model.requirement import (
    Authority,
    Course,
    CoverageInformation,
    Covered,
    DocNeeded,
    DocPurpose,
    InfoNeeded,
    PaNeeded,
    course,
)
from services.prior_authorization.model.rows import ANY, Match, Question, Row, Scope, most_specific
from shared.contracts.base import Coding
from shared.kit.document import Part


class RulesError(ValueError):
    """A rules file that cannot be used; says where."""


class AppealPolicy(StrEnum):
    """What follows a denial that could still be appealed."""

    AUTOMATIC = "automatic"
    BY_PERSON = "by-person"
    NONE = "none"


class Rule(Scope):
    """One row: whether the requests of its scope are covered and need approval, and why.

    ``needed`` is short for ``pa_needed``: ``auth-needed`` or ``no-auth``. The other columns are those of CRD's
    coverage-information; ``expires_days`` is for how many days from the question on it holds.
    """

    why: str
    needed: bool | None = None
    covered: Covered = Covered.COVERED
    pa_needed: PaNeeded | None = None
    doc_needed: tuple[DocNeeded, ...] = ()
    doc_purpose: tuple[DocPurpose, ...] = ()
    info_needed: tuple[InfoNeeded, ...] = ()
    questionnaires: tuple[Canonical, ...] = ()
    satisfied_pa_id: str | None = Field(None, min_length=1, max_length=50)
    expires_days: int | None = Field(None, ge=0, le=3660)

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        silent = self.pa_needed is None and self.covered is Covered.COVERED
        if (self.needed is None) == silent:
            raise ValueError("says either needed, or pa_needed or covered")
        broken = self.told(date.min).contradictions()
        if broken:
            raise ValueError(f"contradicts itself: {', '.join(broken)}")
        return self

    @property
    def plain(self) -> bool:
        """Whether it says no more than that approval is needed or not."""
        return self.needed is not None and not (self.doc_needed or self.doc_purpose or self.questionnaires)

    @property
    def frees(self) -> bool:
        """Whether no approval is needed by it."""
        return self.needed is False or self.pa_needed is PaNeeded.NO_AUTH

    def told(self, on: date) -> CoverageInformation:
        """What it says when it is asked on a day."""
        by_needed = {True: PaNeeded.AUTH_NEEDED, False: PaNeeded.NO_AUTH, None: self.pa_needed}
        return CoverageInformation(
            covered=self.covered,
            pa_needed=by_needed[self.needed],
            doc_needed=self.doc_needed,
            doc_purpose=self.doc_purpose,
            info_needed=self.info_needed,
            questionnaires=self.questionnaires,
            satisfied_pa_id=self.satisfied_pa_id,
            expires_on=None if self.expires_days is None else on + timedelta(days=self.expires_days),
            source=Authority.RULES,
            why=self.why,
        )


class Budget(Row):
    """How fast one payer may be called, for one purpose, by all workers together.

    ``a_second`` calls a second, up to ``burst`` of them at once after a pause, at most ``in_flight`` unanswered. After
    ``failures`` calls in a row without an answer it is left alone for ``left_alone`` seconds, then tried by one call.
    """

    a_second: float = Field(10.0, gt=0, allow_inf_nan=False)
    burst: float = Field(5.0, ge=1, allow_inf_nan=False)
    in_flight: int = Field(8, ge=1)
    failures: int = Field(5, ge=1)
    left_alone: float = Field(30.0, gt=0, allow_inf_nan=False)

    def share(self, shares: int) -> Budget:
        """What one of so many equal shares may use; together they use no more than the whole.

        At least one call at once and one in flight: ``PayerTerms`` sees to it that there is so much to be shared.
        """
        divided = {
            "a_second": self.a_second / shares,
            "burst": max(1.0, self.burst / shares),
            "in_flight": max(1, self.in_flight // shares),
        }
        return self.model_copy(update=divided)


class Purpose(StrEnum):
    """What a payer is called for; each has a budget of its own."""

    SUBMIT = "submit"
    POLL = "poll"


class PayerTerms(Row):
    """How one payer (or ``*``) is dealt with. Hours are its working hours in its time zone, Monday to Friday.

    ``submit`` is the budget of all that is sent to it (requests, appeals, cancellations), ``poll`` that of inquiries.
    A payer too large for one worker is split into ``shares``; the number may be raised at any time, and lowered only
    when nothing of the payer is open any more. ``poll_minutes``: one request is not asked about more often than that.
    ``closed`` are days off beside federal holidays. ``rating_period`` is the month and day (``07-01``) on which a
    Medicaid or CHIP managed care plan's rating periods start. ``notifies``: it takes a subscription to its decisions.
    ``notify_secret``: it sends the secret that the subscription names along with each notification.
    """

    payer: str = ANY
    line_of_business: LineOfBusiness = LineOfBusiness.OTHER
    rating_period: str = Field("01-01", pattern=r"^\d\d-\d\d$")
    appeal: AppealPolicy = AppealPolicy.BY_PERSON
    appeal_levels: int = Field(1, ge=0, le=5)
    timezone: str = "America/New_York"
    opens: int = Field(8, ge=0, le=23)
    closes: int = Field(18, ge=1, le=24)
    closed: tuple[date, ...] = ()
    poll_minutes: int = Field(15, ge=1, le=720)
    notifies: bool = False
    notify_secret: bool = False
    shares: int = Field(1, ge=1, le=64)
    retrospective_days: int = Field(14, ge=0, le=365)
    submit: Budget = Budget()
    poll: Budget = Budget()

    @model_validator(mode="after")
    def _divisible(self) -> PayerTerms:
        for purpose in Purpose:
            budget = self.budget(purpose)
            if self.shares > min(budget.burst, budget.in_flight):
                raise ValueError(f"has more shares than {purpose} has calls at once or in flight")
        return self

    def budget(self, purpose: Purpose) -> Budget:
        """The whole budget for a purpose."""
        return self.submit if purpose is Purpose.SUBMIT else self.poll

    @model_validator(mode="after")
    def _open(self) -> PayerTerms:
        if self.closes <= self.opens:
            raise ValueError("closes before it opens")
        return self

    @property
    def rating_period_start(self) -> tuple[int, int]:
        """Month and day."""
        month, day = self.rating_period.split("-")
        return int(month), int(day)

    @field_validator("rating_period")
    @classmethod
    def _a_day(cls, value: str) -> str:
        month, day = value.split("-")
        try:
            date(2026, int(month), int(day))
        except ValueError:
            raise ValueError("is not a month and a day of every year, as in 07-01") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("is not a time zone of the IANA data base") from None
        return value


class Terms(Part):
    """What was laid down for one request when it was opened; kept on its document, so that decisions stay pure."""

    why: str
    needed: bool
    coverage: CoverageInformation | None = None
    """What rules or payer say of the service, where that is more than ``needed``."""
    needs: tuple[Need, ...] = ()
    """What the request must be sent with."""
    appeal: AppealPolicy = AppealPolicy.BY_PERSON
    appeal_levels: int = 1
    timezone: str = "America/New_York"
    opens: int = 8
    closes: int = 18
    decision_hours: int = 168
    appeal_hours: int = 720
    """The limits in nominal hours: what they are counted by exactly is ``clocks``, where those were kept."""
    poll_minutes: int = 15
    retrospective_days: int = 14
    """For how long after it was given a service may still be asked for."""
    line_of_business: LineOfBusiness = LineOfBusiness.OTHER
    clocks: tuple[ClockTerms, ...] = ()
    """The limits in force when it was opened, and those that come into force later: the receipt decides."""
    closed: tuple[date, ...] = ()

    @property
    def told(self) -> CoverageInformation:
        """What is said of the service."""
        plain = PaNeeded.AUTH_NEEDED if self.needed else PaNeeded.NO_AUTH
        return self.coverage or CoverageInformation(pa_needed=plain, source=Authority.RULES, why=self.why)

    @property
    def course(self) -> tuple[Course, str]:
        """What follows for the request, and why."""
        return course(self.told)

    def with_answer(self, told: CoverageInformation) -> Terms:
        """These terms where the payer itself said what it requires: its word prevails over the rules."""
        needed = course(told)[0] is not Course.NOT_REQUIRED
        needs = together(self.needs, told.needs())
        return self.model_copy(update={"why": told.why, "needed": needed, "coverage": told, "needs": needs})

    @property
    def by_hours(self) -> tuple[ClockTerms, ...]:
        """The limits of a request whose ``clocks`` were not kept."""
        hours = f"{self.appeal_hours} hours"
        return (
            ClockTerms(
                since=date.min,
                limit=f"{self.decision_hours} hours",
                appeal=hours,
                appeal_expedited=hours,
                appeal_within="60 calendar days",
                basis="as when it was opened",
            ),
        )

    @property
    def calendar(self) -> Calendar:
        """The payer's working days."""
        return Calendar(self.timezone, self.opens, self.closes, frozenset(self.closed))


_ClockKey = tuple[LineOfBusiness, tuple[int, int], str, str, date, bool]

_REMEMBERED = 1024


class RuleBook(Row):
    """All of a rules file."""

    rules: tuple[Rule, ...] = ()
    evidence: tuple[EvidenceRule, ...] = ()
    payers: tuple[PayerTerms, ...] = ()
    clocks: tuple[Clock, ...] = ()
    _clocks_of: dict[_ClockKey, tuple[ClockTerms, ...]] = PrivateAttr(default_factory=dict)
    """What was found for the requests of a day: the same for all requests of a line of business."""

    @classmethod
    def parse(cls, text: str) -> RuleBook:
        """Read the text of a rules file. Raises RulesError naming each place that is wrong."""
        try:
            raw: Mapping[str, Any] = tomllib.loads(text)
            return cls.model_validate(raw)
        except tomllib.TOMLDecodeError as refusal:
            raise RulesError(f"not TOML: {refusal}") from None
        except ValidationError as refusal:
            flaws = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in refusal.errors())
            raise RulesError(flaws) from None

    def assess(
        self,
        payer_id: str,
        plan: str | None,
        service: Coding,
        *,
        on: date,
        expedited: bool,
        kind: str | None = None,
        place: str | None = None,
        age: int | None = None,
        member_known: bool = True,
        default: str = "default",
    ) -> Terms:
        """Whether approval is needed on a day, by which rule (``why``), what goes along, and the terms of seeking it.

        Where a rule ahead of the one that matches would depend on the member, who is not known yet, nothing is decided:
        approval counts as needed until the member is known.
        """
        question = Question(payer_id, service, on, plan, age, place, kind, member_known)
        rule = self._rule(question)
        told = None if rule is None or rule.plain else rule.told(on)
        needed = True if rule is None else course(rule.told(on))[0] is not Course.NOT_REQUIRED
        return self.terms(question, expedited=expedited).model_copy(
            update={
                "why": rule.why if rule else default,
                "needed": needed,
                "coverage": told,
                "needs": together(self.needs(question), told.needs() if told else ()) if needed else (),
            }
        )

    def _rule(self, question: Question) -> Rule | None:
        """The first rule that matches; None where there is none, or one ahead of it depends on the member."""
        for rule in self.rules:
            match = rule.matches(question)
            if match is Match.YES:
                return rule
            if match is Match.DEPENDS:
                return None
        return None

    def may_be_free(self, payer_id: str, service: Coding) -> bool:
        """Whether any rule says, at some time and for some member, that this service needs no approval."""
        return any(rule.frees and rule.speaks_of(payer_id, service) for rule in self.rules)

    def needs(self, question: Question) -> tuple[Need, ...]:
        """What a request must be sent with by the rows of ``evidence``, all that match."""
        rows = [row for row in self.evidence if row.matches(question) is Match.YES]
        return together(*((need.need() for need in row.needs) for row in rows))

    @property
    def asks_age(self) -> bool:
        """Whether any row depends on the member's age."""
        return any(row.asks_age for row in (*self.rules, *self.evidence))

    def terms(self, question: Question, *, expedited: bool) -> Terms:
        """The terms of seeking an approval, without what is said of the service."""
        payer = self._payer(question.payer_id)
        clocks = self.clocks_of(question.payer_id, kind=question.kind or ANY, on=question.on, expedited=expedited)
        limit = in_force(clocks, question.on)
        return Terms(
            why="",
            needed=True,
            appeal=payer.appeal,
            appeal_levels=payer.appeal_levels,
            timezone=payer.timezone,
            opens=payer.opens,
            closes=payer.closes,
            poll_minutes=payer.poll_minutes,
            retrospective_days=payer.retrospective_days,
            line_of_business=payer.line_of_business,
            clocks=clocks,
            decision_hours=Limit.parse(limit.limit).hours,
            appeal_hours=Limit.parse(limit.appeal).hours,
            closed=payer.closed,
        )

    def clocks_of(self, payer_id: str, *, kind: str, on: date, expedited: bool) -> tuple[ClockTerms, ...]:
        """The payer's limits for a kind of service from the day before ``on``: it may still be that day there."""
        payer = self._payer(payer_id)
        key = (
            payer.line_of_business,
            payer.rating_period_start,
            payer_id if any(row.payer == payer_id for row in self.clocks) else ANY,
            kind if any(row.kind == kind for row in self.clocks) else ANY,
            on,
            expedited,
        )
        if key not in self._clocks_of:
            if len(self._clocks_of) >= _REMEMBERED:
                self._clocks_of.clear()
            line, rating_period, payer_key, kind_key, _, _ = key
            self._clocks_of[key] = applying(
                self.clocks,
                line,
                payer_id=payer_key,
                kind=kind_key,
                on=on - timedelta(days=1),
                expedited=expedited,
                rating_period=rating_period,
            )
        return self._clocks_of[key]

    def notifies(self, payer_id: str) -> bool:
        """Whether a payer takes a subscription to its decisions."""
        return self._payer(payer_id).notifies

    def has_secret(self, payer_id: str) -> bool:
        """Whether the payer's notifications carry the secret of its subscription."""
        return self._payer(payer_id).notify_secret

    @property
    def has_secrets(self) -> bool:
        """Whether any payer's do."""
        return any(payer.notify_secret for payer in self.payers)

    def share_of(self, payer_id: str, id: str) -> int:
        """The share of a payer that a new request of this id falls to: 0 where the payer is not split."""
        return zlib.crc32(id.encode()) % self._payer(payer_id).shares

    def budget(self, payer_id: str, purpose: Purpose) -> Budget:
        """What one share of a payer may be called for a purpose; the whole where it is not split."""
        payer = self._payer(payer_id)
        return payer.budget(purpose).share(payer.shares)

    def _payer(self, payer_id: str) -> PayerTerms:
        return most_specific(self.payers, payer_id, lambda row: row.payer) or PayerTerms()

"""How payers decide, counted from what this service told of it: the measures they must publish, and more.

42 CFR 422.122(c) (CMS-0057-F; the same for Medicaid, CHIP and exchange plans) names what a payer publishes once a year,
drugs excepted. The law leaves the denominators open: here they stand beside each share. What it counts are prior
authorization requests, "aggregated for all items and services" ((c)(2) to (9); 438.210(f), 440.230(e)(3), 457.732(c)
and 45 CFR 156.223(c) say the same): so a payer's numbers are of requests, whole. A service's numbers are of items: a
request with several counts once for each, under its own service and by the payer's decision on it.

The count is a join: each event only lowers a minimum or raises a maximum, so events may come in any order, again and
again, and change nothing by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from shared.contracts.base import Coding, Event
from shared.contracts.prior_authorization import (
    AuthorizationAppealed,
    AuthorizationCancelled,
    AuthorizationPended,
    AuthorizationRuled,
    AuthorizationSubmitted,
    ReviewAction,
)

COUNTED: tuple[type[Event], ...] = (
    AuthorizationAppealed,
    AuthorizationCancelled,
    AuthorizationPended,
    AuthorizationRuled,
    AuthorizationSubmitted,
)
"""The events that are counted; all others are passed by."""

APPROVED = frozenset({ReviewAction.CERTIFIED, ReviewAction.PARTIAL, ReviewAction.MODIFIED})
IN_PART = APPROVED - {ReviewAction.CERTIFIED}
MERITS = APPROVED | {ReviewAction.NOT_CERTIFIED}
"""Decisions on what was asked for. The payer's C, NA and CT decide nothing of it."""

ENDS = MERITS | {ReviewAction.CANCELLED, ReviewAction.NO_ACTION_REQUIRED}
"""After which a pend is over."""

APPEAL, UPDATE, DRUG = "appeal", "update", "drug"
AGES = (1, 3, 7, 14)
"""Days by which open pends are told apart; what is older stands by itself."""

BY_PAYER = "payer"

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class Told(NamedTuple):
    """An event as it was published: the authorization it is about, its number there, and when it was recorded."""

    subject: str
    sequence: int
    at: datetime
    event: Event


class Outcome(StrEnum):
    """What became of a request."""

    APPROVED = "approved"
    DENIED = "denied"
    CANCELLED = "cancelled"
    NOT_REQUIRED = "not-required"
    WITHDRAWN = "withdrawn"
    OPEN = "open"


# -- what is read off -----------------------------------------------------------------------------------------------


class _Figure(BaseModel):
    model_config = ConfigDict(frozen=True)


class Share(_Figure):
    """``count`` of ``of``; ``percent`` is None of none."""

    count: int
    of: int
    percent: float | None

    @classmethod
    def part(cls, count: int, of: int) -> Share:
        """So many of so many."""
        return cls(count=count, of=of, percent=round(100 * count / of, 1) if of else None)


class Times(_Figure):
    """From the payer's having a request to its first decision, in hours; None of none."""

    decided: int
    mean: float | None
    median: float | None

    @classmethod
    def over(cls, times: list[timedelta]) -> Times:
        """Mean and median, to a hundredth of an hour."""
        if not times:
            return cls(decided=0, mean=None, median=None)
        ordered = sorted(times)
        mean = sum(ordered, timedelta()) / len(ordered)
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        return cls(decided=len(ordered), mean=round(mean / _HOUR, 2), median=round(middle / _HOUR, 2))


class Track(_Figure):
    """Requests of one urgency. Approved, denied and approved after appeal are shares of those decided."""

    received: int
    decided: int
    approved: Share
    denied: Share
    approved_after_appeal: Share
    time: Times


class Pends(_Figure):
    """``pended``: how many requests and appeals were not answered at once. ``open``: those that still wait, by age.

    The ages are counted in days up to and with 1, 3, 7, 14, and more.
    """

    pended: Share
    open: int
    ages: dict[str, int]
    oldest_days: float | None


class Measures(_Figure):
    """All that is counted of some requests.

    ``extended_and_approved``: approved after more than the payer's time, of all decided. ``in_part``: of those
    approved, what was granted in part or changed. ``overturned``: of the appeals decided, those approved in any part.
    ``human_reviewed``: of the decisions of which the payer says so or not. ``undecided``: by what became of them.
    """

    received: int
    standard: Track
    expedited: Track
    extended_and_approved: Share
    in_part: Share
    appeals: int
    overturned: Share
    human_reviewed: Share
    pends: Pends
    undecided: dict[str, int]


class ServiceMeasures(_Figure):
    """One service of one payer."""

    service: Coding
    kind: str | None
    measures: Measures


class PayerMeasures(_Figure):
    """One payer: what it must publish (drugs excepted), drugs apart, and each service."""

    payer_id: str
    lines_of_business: tuple[str, ...]
    all: Measures
    drugs: Measures | None
    services: tuple[ServiceMeasures, ...]


class Scorecard(_Figure):
    """The requests that payers received from ``since`` to ``until``, both days inclusive, in UTC, as of ``as_of``."""

    since: date | None
    until: date | None
    as_of: datetime
    payers: tuple[PayerMeasures, ...]
    not_counted: int
    """Requests of which nothing is known but that they were sent: told before rulings were."""


# -- what is kept ---------------------------------------------------------------------------------------------------


class _About(NamedTuple):
    """What was asked for, as the event of this number said."""

    sequence: int
    payer_id: str
    line_of_business: str
    service: Coding
    kind: str | None
    expedited: bool


class _First(NamedTuple):
    """The payer's first decision on a claim."""

    at: datetime
    sequence: int
    extended: bool


class _Last(NamedTuple):
    """The decision that stands."""

    sequence: int
    action: ReviewAction
    human_reviewed: bool | None


T = TypeVar("T", datetime, _About, _First)


@dataclass(slots=True)
class _Claim:
    """One claim, as far as it was told."""

    about: _About | None = None
    purpose: str | None = None
    prior: str | None = None
    began: datetime | None = None
    pended: datetime | None = None
    first: _First | None = None
    merit: _Last | None = None
    other: _Last | None = None
    ended: datetime | None = None
    items: dict[int, _Claim] = field(default_factory=dict)
    """Each item's part of it, by number, where there are several."""

    def item(self, sequence: int) -> _Claim:
        """An item's part, begun where it is not known."""
        return self.items.setdefault(sequence, _Claim())

    def ruled(self, sequence: int, event: AuthorizationRuled) -> None:
        """Take one ruling in."""
        last = _Last(sequence, event.action, event.human_reviewed)
        if event.action in MERITS:
            self.first = _least(self.first, _First(event.decided_at, sequence, event.extended))
            self.merit = _most(self.merit, last) if event.standing else self.merit
        elif event.standing:
            self.other = _most(self.other, last)
        if event.action in ENDS:
            self.ended = _least(self.ended, event.decided_at)

    @property
    def waited(self) -> datetime | None:
        """Since when the payer let it wait. An appeal that is not decided at once is not told as pended."""
        if self.purpose != APPEAL or self.pended is not None:
            return self.pended
        return None if self.began is None or (self.ended is not None and self.ended <= self.began) else self.began

    def take_up(self, later: _Claim) -> None:
        """An update replaces what it updates: what is decided of it is decided of both."""
        self.first = _least(self.first, later.first)
        self.merit = _most(self.merit, later.merit)
        self.other = _most(self.other, later.other)
        self.pended = _least(self.pended, later.pended)
        self.ended = _least(self.ended, later.ended)
        for sequence, item in later.items.items():
            known = self.item(sequence)
            known.about = _least(known.about, item.about)
            known.take_up(item)


@dataclass(slots=True)
class _Case:
    """One authorization: its claims, and when we withdrew it."""

    claims: dict[str, _Claim] = field(default_factory=dict)
    withdrawn: datetime | None = None
    unnamed: bool = False

    def claim(self, id: str) -> _Claim:
        """The claim of this id, begun where it is not known."""
        return self.claims.setdefault(id, _Claim())


@dataclass(frozen=True, slots=True)
class _Request:
    """A request with its appeals, ready to be counted."""

    about: _About
    began: datetime
    claim: _Claim
    appeals: tuple[_Claim, ...]
    withdrawn: datetime | None

    @property
    def outcome(self) -> Outcome:
        """By the payer's latest decision on the request itself, whatever became of an appeal."""
        if self.claim.merit is not None:
            return Outcome.APPROVED if self.claim.merit.action in APPROVED else Outcome.DENIED
        other = self.claim.other.action if self.claim.other else None
        if other is ReviewAction.NO_ACTION_REQUIRED:
            return Outcome.NOT_REQUIRED
        if other is ReviewAction.CANCELLED and self.withdrawn is None:
            return Outcome.CANCELLED
        return Outcome.WITHDRAWN if self.withdrawn is not None else Outcome.OPEN

    def each(self) -> Iterator[_Request]:
        """Its items as requests of their own; itself, where there is one.

        The payer has them as long as the request, and lets them wait with it; an appeal is of those that it asks for.
        """
        if not self.claim.items:
            yield self
        for sequence, item in self.claim.items.items():
            if item.about is not None:
                appeals = (appeal if not appeal.items else appeal.items.get(sequence) for appeal in self.appeals)
                began = replace(item, purpose=self.claim.purpose, began=self.began, pended=self.claim.pended)
                yield replace(self, about=item.about, claim=began, appeals=tuple(each for each in appeals if each))

    @property
    def overturned(self) -> bool:
        """Whether an appeal of it was approved in any part."""
        return any(appeal.merit is not None and appeal.merit.action in APPROVED for appeal in self.appeals)

    @property
    def needed(self) -> timedelta:
        """How long the payer had it before it first decided."""
        first = self.claim.first
        return max(first.at - self.began, timedelta()) if first is not None else timedelta()


class Tally:
    """Takes events in, in any order, as often as they come; ``card`` reads off what they come to."""

    def __init__(self) -> None:
        self._cases: dict[str, _Case] = {}

    def add(self, told: Told) -> None:
        """Take one event in."""
        event = told.event
        if not isinstance(event, COUNTED):
            return
        case = self._cases.setdefault(told.subject, _Case())
        if isinstance(event, AuthorizationRuled):
            _ruled(case.claim(event.claim_id), told.sequence, event)
        elif isinstance(event, AuthorizationSubmitted):
            _submitted(case, told.sequence, event)
        elif isinstance(event, AuthorizationPended) and event.claim_id is not None:
            claim = case.claim(event.claim_id)
            claim.pended = _least(claim.pended, event.pended_at or told.at)
        elif isinstance(event, AuthorizationAppealed) and event.claim_id is not None:
            claim = case.claim(event.claim_id)
            claim.purpose, claim.prior = APPEAL, event.prior_claim_id or claim.prior
            claim.began = _least(claim.began, event.received_at or told.at)
        elif isinstance(event, AuthorizationCancelled) and event.reason != BY_PAYER:
            case.withdrawn = _least(case.withdrawn, told.at)

    def card(
        self, as_of: datetime, *, payer_id: str | None = None, since: date | None = None, until: date | None = None
    ) -> Scorecard:
        """The scorecard of the requests that payers received in a period; pends are told as they stood at ``as_of``."""
        by_payer: dict[str, list[_Request]] = {}
        for request in self._requests():
            if payer_id in (None, request.about.payer_id) and _within(request.began.date(), since, until):
                by_payer.setdefault(request.about.payer_id, []).append(request)
        payers = tuple(_payer(payer, by_payer[payer], as_of) for payer in sorted(by_payer))
        unnamed = sum(case.unnamed and not case.claims for case in self._cases.values())
        return Scorecard(since=since, until=until, as_of=as_of, payers=payers, not_counted=unnamed)

    def _requests(self) -> Iterator[_Request]:
        for case in self._cases.values():
            yield from _requests(case)


def _submitted(case: _Case, sequence: int, event: AuthorizationSubmitted) -> None:
    if event.claim_id is None or event.service is None or event.received_at is None:
        case.unnamed = True
        return
    claim = case.claim(event.claim_id)
    line, urgent = event.line_of_business or "other", bool(event.expedited)
    about = _About(sequence, event.payer_id, line, event.service, event.kind, urgent)
    claim.about = _least(claim.about, about)
    claim.began = _least(claim.began, event.received_at)
    for item in event.items:
        part = claim.item(item.sequence)
        part.about = _least(part.about, about._replace(service=item.service, kind=item.kind))


def _ruled(claim: _Claim, sequence: int, event: AuthorizationRuled) -> None:
    about = _About(sequence, event.payer_id, event.line_of_business, event.service, event.kind, event.expedited)
    claim.about = _least(claim.about, about)
    claim.purpose = event.purpose
    claim.prior = event.prior_claim_id or claim.prior
    claim.began = _least(claim.began, event.received_at)
    claim.ruled(sequence, event)
    for item in event.items:
        part = claim.item(item.sequence)
        part.about = _least(part.about, about._replace(service=item.service, kind=item.kind))
        part.purpose, part.prior, part.began = event.purpose, claim.prior, claim.began
        if item.action is not None:
            part.ruled(sequence, event.model_copy(update={"action": item.action}))


def _least(known: T | None, new: T | None) -> T | None:
    """The smaller of two, where both are there."""
    if known is None or new is None:
        return new if known is None else known
    return min(known, new)


def _most(known: _Last | None, new: _Last | None) -> _Last | None:
    """The one told last, where both are there."""
    if known is None or new is None:
        return new if known is None else known
    return max(known, new, key=lambda last: last.sequence)


def _within(day: date, since: date | None, until: date | None) -> bool:
    return not (since and day < since) and not (until and day > until)


# -- requests -------------------------------------------------------------------------------------------------------


def _requests(case: _Case) -> Iterator[_Request]:
    """The requests of an authorization: each with what updated it, and the appeals that go back to it."""
    appeals: dict[str, list[_Claim]] = {}
    updates: dict[str, list[_Claim]] = {}
    for id, claim in case.claims.items():
        if claim.purpose == APPEAL:
            appeals.setdefault(_root(case, id), []).append(claim)
        elif claim.purpose == UPDATE and _root(case, id) != id:
            updates.setdefault(_root(case, id), []).append(claim)
    for id, claim in case.claims.items():
        if claim.about is None or claim.began is None or claim.purpose == APPEAL or _root(case, id) != id:
            continue
        whole = _Claim(claim.about, claim.purpose, None, claim.began)
        for part in (claim, *updates.get(id, ())):
            whole.take_up(part)
        yield _Request(claim.about, claim.began, whole, tuple(appeals.get(id, ())), case.withdrawn)


def _root(case: _Case, id: str) -> str:
    """The request that a claim goes back to: over appeals and updates to what they are about."""
    seen = {id}
    while (claim := case.claims.get(id)) is not None and claim.purpose in (APPEAL, UPDATE):
        if claim.prior is None or claim.prior in seen:
            break
        id = claim.prior
        seen.add(id)
    return id


# -- measures -------------------------------------------------------------------------------------------------------


def _payer(payer_id: str, requests: list[_Request], as_of: datetime) -> PayerMeasures:
    drugs = [request for request in requests if request.about.kind == DRUG]
    by_service: dict[tuple[str, str, str], list[_Request]] = {}
    for request in (each for whole in requests for each in whole.each()):
        about = request.about
        by_service.setdefault((about.service.system, about.service.code, about.kind or ""), []).append(request)
    return PayerMeasures(
        payer_id=payer_id,
        lines_of_business=tuple(sorted({request.about.line_of_business for request in requests})),
        all=_measures([request for request in requests if request.about.kind != DRUG], as_of),
        drugs=_measures(drugs, as_of) if drugs else None,
        services=tuple(
            ServiceMeasures(
                service=Coding(system=system, code=code), kind=kind or None, measures=_measures(some, as_of)
            )
            for (system, code, kind), some in sorted(by_service.items())
        ),
    )


def _measures(requests: list[_Request], as_of: datetime) -> Measures:
    decided = [request for request in requests if request.claim.merit is not None]
    approved = [request for request in decided if request.outcome is Outcome.APPROVED]
    appeals = [appeal for request in requests for appeal in request.appeals]
    rulings = [claim.merit for claim in (*(r.claim for r in requests), *appeals) if claim.merit is not None]
    spoken = [ruling.human_reviewed for ruling in rulings if ruling.human_reviewed is not None]
    appeals_decided = [appeal.merit.action in APPROVED for appeal in appeals if appeal.merit is not None]
    extended = [request for request in approved if request.claim.first is not None and request.claim.first.extended]
    undecided = [request.outcome for request in requests if request.claim.merit is None]
    return Measures(
        received=len(requests),
        standard=_track([request for request in requests if not request.about.expedited]),
        expedited=_track([request for request in requests if request.about.expedited]),
        extended_and_approved=Share.part(len(extended), len(decided)),
        in_part=Share.part(sum(_action(request) in IN_PART for request in approved), len(approved)),
        appeals=len(appeals),
        overturned=Share.part(sum(appeals_decided), len(appeals_decided)),
        human_reviewed=Share.part(sum(spoken), len(spoken)),
        pends=_pends(requests, as_of),
        undecided={name: undecided.count(name) for name in Outcome if name not in (Outcome.APPROVED, Outcome.DENIED)},
    )


def _action(request: _Request) -> ReviewAction | None:
    return request.claim.merit.action if request.claim.merit is not None else None


def _track(requests: list[_Request]) -> Track:
    decided = [request for request in requests if request.claim.merit is not None]
    approved = sum(request.outcome is Outcome.APPROVED for request in decided)
    overturned = sum(request.outcome is Outcome.DENIED and request.overturned for request in decided)
    return Track(
        received=len(requests),
        decided=len(decided),
        approved=Share.part(approved, len(decided)),
        denied=Share.part(len(decided) - approved, len(decided)),
        approved_after_appeal=Share.part(overturned, len(decided)),
        time=Times.over([request.needed for request in decided]),
    )


def _pends(requests: list[_Request], as_of: datetime) -> Pends:
    sent = pended = 0
    ages: list[timedelta] = []
    for request in requests:
        for claim in (request.claim, *request.appeals):
            sent += 1
            pended += claim.waited is not None
            if claim.waited is not None and _waits(claim.waited, claim.ended, request.withdrawn, as_of):
                ages.append(as_of - claim.waited)
    bounds = [0, *AGES]
    told = {
        f"{low}-{high} days": sum(low * _DAY < age <= high * _DAY or (not low and not age) for age in ages)
        for low, high in zip(bounds, AGES, strict=False)
    }
    told[f"over {AGES[-1]} days"] = sum(age > AGES[-1] * _DAY for age in ages)
    oldest = round(max(ages) / _DAY, 1) if ages else None
    return Pends(pended=Share.part(pended, sent), open=len(ages), ages=told, oldest_days=oldest)


def _waits(pended: datetime, ended: datetime | None, withdrawn: datetime | None, as_of: datetime) -> bool:
    """Whether a pend is open at a time."""
    over: Iterable[datetime] = (at for at in (ended, withdrawn) if at is not None)
    return pended <= as_of and not any(at <= as_of for at in over)

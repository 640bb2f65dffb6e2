"""How payers decided, counted from the payers' own ledger: a second count that shares nothing with the scorecard.

What the payer had but never told us is not counted as told: a decision counts where it was answered, notified or asked
for. What was asked for (payer, service, urgency) is known from the requests themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from deploy.simulators.ledger import Authorization, PayerLedger, Received, Ruling

YES, NO, LATER = {"A1", "A2", "A6"}, {"A3"}, {"A4"}
TIME_ALLOWED = {"other": (14 * 24, 72), "medicare-advantage": (7 * 24, 72)}
"""Hours, standard and expedited."""


@dataclass(frozen=True)
class Asked:
    """What a case was about. ``services`` has one for each item: the payers here decide all items alike."""

    payer: str
    line: str
    services: tuple[str, ...]
    expedited: bool


@dataclass
class Numbers:
    """The counts of one group of cases."""

    received: int = 0
    approved: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    denied: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    won: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    hours: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    late_yes: int = 0
    in_part: int = 0
    appeals: int = 0
    appeals_decided: int = 0
    appeals_won: int = 0
    person: int = 0
    person_told: int = 0
    pended: int = 0
    sent: int = 0
    open_days: list[float] = field(default_factory=list)


def told(case: Authorization, ruling: Ruling) -> bool:
    """Whether a ruling reached us: as the answer itself, by a notification that was taken, or by a later inquiry."""
    received = next(claim for claim in case.claims if claim.attempt_id == ruling.claim)
    if received.received_at == ruling.at:
        return True
    if any(note.accepted and note.claim == ruling.claim and note.due == ruling.at for note in case.notifications):
        return True
    return any(_says(case, ruling, at) for at in case.inquiries)


def _says(case: Authorization, ruling: Ruling, at: datetime) -> bool:
    """Whether an inquiry at that time was answered by this ruling: it was made, and nothing newer was.

    What it leads to (an appeal that is decided at once) may bear the time of the inquiry itself; another word on the
    same claim may not.
    """
    later = [each for each in case.history if each.at > ruling.at]
    return ruling.at <= at and all(at < each.at or (at == each.at and each.claim != ruling.claim) for each in later)


def of_claim(case: Authorization, claim: Received) -> list[Ruling]:
    """What was told of a claim, in the order of its dates."""
    return sorted((r for r in case.history if r.claim == claim.attempt_id and told(case, r)), key=lambda r: r.at)


def recount(ledger: PayerLedger, asked: Mapping[str, Asked], as_of: datetime, group: object) -> Numbers:
    """The numbers of the cases, each counted as often as ``group(asked)`` says. ``asked`` is by the first claim's
    identifier."""
    numbers = Numbers()
    for case in ledger.authorizations:
        about = asked[case.id]
        for _ in range(group(about)):  # type: ignore[operator]
            _count(numbers, case, about, as_of)
    return numbers


def _count(numbers: Numbers, case: Authorization, about: Asked, as_of: datetime) -> None:
    first, *rest = case.claims
    ended = min((claim.received_at for claim in rest if claim.certification_type == "3"), default=None)
    appeals = [claim for claim in rest if claim.certification_type in ("1", "2")]
    numbers.received += 1
    _waits(numbers, case, first, ended, as_of)
    merits = _merits(case, first)
    for appeal in appeals:
        _waits(numbers, case, appeal, ended, as_of)
    numbers.appeals += len(appeals)
    decided_appeals = [found[-1] for appeal in appeals if (found := _merits(case, appeal))]
    numbers.appeals_decided += len(decided_appeals)
    numbers.appeals_won += sum(ruling.action in YES for ruling in decided_appeals)
    _persons(numbers, [*merits[-1:], *decided_appeals])
    if not merits:
        return
    needed = (merits[0].at - first.received_at).total_seconds() / 3600
    numbers.hours[about.expedited].append(needed)
    if merits[-1].action in NO:
        numbers.denied[about.expedited] += 1
        numbers.won[about.expedited] += any(ruling.action in YES for ruling in decided_appeals)
        return
    numbers.approved[about.expedited] += 1
    numbers.in_part += merits[-1].action != "A1"
    numbers.late_yes += needed > TIME_ALLOWED[about.line][about.expedited]


def _merits(case: Authorization, claim: Received) -> list[Ruling]:
    return [ruling for ruling in of_claim(case, claim) if ruling.action in YES | NO]


def _persons(numbers: Numbers, rulings: Iterable[Ruling]) -> None:
    for ruling in rulings:
        numbers.person_told += ruling.human_reviewed is not None
        numbers.person += ruling.human_reviewed is True


def _waits(numbers: Numbers, case: Authorization, claim: Received, ended: datetime | None, as_of: datetime) -> None:
    numbers.sent += 1
    if not any(ruling.action in LATER for ruling in case.history if ruling.claim == claim.attempt_id):
        return
    numbers.pended += 1
    over = [ruling.at for ruling in of_claim(case, claim) if ruling.action not in LATER | {"CT"}]
    if not over and ended is None:
        numbers.open_days.append((as_of - claim.received_at).total_seconds() / 86400)

"""How a service declares what it does when time comes: a table of timers per document type.

A ``timer`` leads to a decision. A ``call`` leads out of the system, in four steps, each of which survives a crash:
``prepare`` (a decision that writes the intention by ``document.intend``), ``check`` on a fresh read (consent, STOP,
cancellation), ``perform`` (the call itself), ``settle`` (a decision that folds the outcome onto whatever version then
stands). The engine is ``shared.kit.duework``. A ``dispatch`` is a call whose first step alone is taken here: the
intention goes out by an event on a private topic, and whoever reads that topic takes the others
(``shared.kit.performing``), so that finding what is due and sending it are scaled apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.contracts.base import Event
from shared.kit.decisions import Check, Decision, Perform, Wants
from shared.kit.document import Attempt, Document
from shared.kit.pacing import Allowance

Pace = Callable[[Any], tuple[str, Allowance]]
"""``document -> (who is called, what they allow)``."""
Tell = Callable[[Any, Attempt], Event]


@dataclass(frozen=True, slots=True)
class Timer:
    """``decide(document, Due, facts, now)`` when the timer fires. The timer is taken off before; it may set it anew."""

    name: str
    decide: Decision
    wants: Wants | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """An outside call that a timer starts.

    ``prepare(document, Due, facts, now)`` intends the call (``document.intend(name, now)``), or not, and then
    sets or leaves timers as it likes. ``check`` is asked on a fresh read after that write; False withdraws the
    attempt and asks ``prepare`` again. ``perform(document, attempt, facts)`` returns the outcome, any value that
    ``settle(document, outcome, facts, now)`` understands, ``Refused`` or ``Unanswered`` among them; an exception
    counts as Unanswered. ``idempotent`` says that the other side deduplicates on ``attempt.id``: a lost answer is
    then asked for again under the same id, with backoff, for as long as it takes; else the attempt is settled as
    ``Unanswered`` and never repeated. ``inquiry`` says that the call only asks: one that was intended and
    not made may be settled as ``Unanswered`` without harm. ``concurrency`` bounds the calls in flight in one worker,
    ``pace`` how fast each other side is called.
    """

    name: str
    prepare: Decision
    perform: Perform
    settle: Decision
    check: Check | None = None
    wants: Wants | None = None
    idempotent: bool = True
    inquiry: bool = False
    concurrency: int = 32
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """An outside call that a timer starts and another process makes.

    ``prepare`` is as of ``Call``. ``tell(document, attempt)`` is the event, on a private topic, that has the call made;
    it is recorded in the write of the intention, and again each ``again`` while the attempt stays open.
    """

    name: str
    prepare: Decision
    tell: Tell
    wants: Wants | None = None
    again: timedelta = timedelta(minutes=10)


Job = Timer | Call | Dispatch


def timer(name: str, decide: Decision, *, wants: Wants | None = None) -> Timer:
    """A row of a job table; see ``Timer``."""
    return Timer(name, decide, wants)


def call(
    name: str,
    *,
    prepare: Decision,
    perform: Perform,
    settle: Decision,
    check: Check | None = None,
    wants: Wants | None = None,
    idempotent: bool = True,
    inquiry: bool = False,
    concurrency: int = 32,
    pace: Pace | None = None,
) -> Call:
    """A row of a job table; see ``Call``."""
    return Call(name, prepare, perform, settle, check, wants, idempotent, inquiry, concurrency, pace)


def dispatch(
    name: str, *, prepare: Decision, tell: Tell, wants: Wants | None = None, again: timedelta = timedelta(minutes=10)
) -> Dispatch:
    """A row of a job table; see ``Dispatch``."""
    return Dispatch(name, prepare, tell, wants, again)


class Jobs:
    """The job table of one document type; its rows are shared out among the document's due queues."""

    def __init__(self, document: type[Document], *rows: Job) -> None:
        self.document = document
        self.rows: dict[str, Job] = {row.name: row for row in rows}
        if len(self.rows) != len(rows):
            raise ValueError(f"{document.__name__} has two jobs of one name")

    def of(self, queue: str) -> dict[str, Job]:
        """The rows whose timers are in a queue."""
        return {name: row for name, row in self.rows.items() if self.document.queues.get(name, "") == queue}

    def may_be_claimed(self, queue: str) -> bool:
        """Whether it does no harm in a queue that somebody intends a call which he then does not make.

        That is so where what follows is the same call again, or as good as none.
        """
        return all(not isinstance(row, Call) or row.idempotent or row.inquiry for row in self.of(queue).values())

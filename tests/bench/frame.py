"""The contract between ``make bench`` and its scenarios: what a scenario is given, and what it hands back.

A scenario is a module of this package, named in ``SCENARIOS``, with one entry::

    async def measure(ground: Ground) -> Outcome

Everything else (tables, JSON, plots, the summary, docs/benchmarks.md) is made from the outcome.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from deploy.embedded import Stack
from deploy.embedded.foundation import Embedded, Foundation
from deploy.native import Native

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCENARIOS = {
    "reaction": "tests.bench.reaction",
    "reminders": "tests.bench.reminders",
    "scaling": "tests.bench.reminders_scaling",
    "polling": "tests.bench.polling",
    "end_to_end": "tests.bench.end_to_end",
}
"""Every scenario by its name, in the order they run, with the module that holds its ``measure``."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a summary key should reach: ``at_least`` or ``at_most``, in the key's own unit."""

    says: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether a measured value reaches it."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        bounds = [f"at least {self.at_least:g}" if self.at_least is not None else ""]
        bounds.append(f"at most {self.at_most:g}" if self.at_most is not None else "")
        return ", ".join(filter(None, bounds))


TARGETS = {
    "reaction_vs_floor": Target("reaction path / floor, 10% of traces sampled", at_least=0.6),
    "reaction_vs_floor_all_traces": Target("reaction path / floor, all traces sampled", at_least=0.35),
    "reaction_vs_straightforward": Target("reaction path / straightforward FastStream service", at_least=10),
    "reminders_vs_best_peer": Target("reminders, due to accepted / best peer", at_least=5),
    "lateness_p99_s": Target("reminder lateness p99 at 1,000/s, seconds", at_most=2),
    "backlog_1m_vs_10k": Target("throughput with 1 M pending / with 10 k pending", at_least=0.85),
    "polling_budget_used": Target("polling: share of the allowed budget used", at_least=0.95),
    "polling_violations": Target("polling: calls beyond a payer's budget", at_most=0),
    "polling_vs_httpx": Target("polling / bare httpx loop", at_least=0.7),
    "end_to_end_p99_s": Target("referral accepted to appointment booked, p99 at 50/s, seconds", at_most=2),
}
"""The keys of ``summary.json``. A scenario's ``ratios`` use these and no others."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing measured several times: ``runs`` in ``unit``, one figure a run, warm-up left out."""

    name: str
    unit: str
    runs: Sequence[float]

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.runs)

    @property
    def low(self) -> float:
        """The least of the runs."""
        return min(self.runs)

    @property
    def high(self) -> float:
        """The greatest of the runs."""
        return max(self.runs)

    def over(self, other: Measure, name: str) -> Measure:
        """This to another, run by run: runs that were measured side by side share the machine's noise."""
        pairs = zip(self.runs, other.runs, strict=True)
        return Measure(name, "ratio", [mine / its for mine, its in pairs])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario found. ``ratios`` go to the summary under the keys of ``TARGETS``; ``notes`` are sentences that
    a reader needs beside the numbers (how a peer was configured, what bounds a missed target). ``draw`` fills the plot;
    without it every unit gets a panel of bars with ranges."""

    scenario: str
    measures: Sequence[Measure]
    ratios: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    draw: Callable[[Figure], None] | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.ratios) - set(TARGETS):
            raise ValueError(f"no such summary key: {', '.join(sorted(unknown))}")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a scenario stands on: whether it is a quick run, stacks of the chosen foundation, and a line to the user."""

    foundation: Callable[[], Foundation]
    quick: bool
    console: Console = field(default_factory=lambda: Console(stderr=True))

    @classmethod
    def of(cls, stack: str, *, quick: bool) -> Ground:
        """The ground on the ``native`` or the ``embedded`` foundation."""
        foundations: dict[str, Callable[[], Foundation]] = {"native": Native, "embedded": Embedded}
        return cls(foundations[stack], quick)

    @property
    def runs(self) -> int:
        """How often a figure is measured after the warm-up: five times, or once in a quick run."""
        return 1 if self.quick else 5

    @contextmanager
    def stack(self, *only: str, environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
        """A fresh stack in a folder of its own, gone behind the block. Without ``only`` it is all of the programs.

        Raises StackError where it does not start, Missing or BuildFailed where this machine lacks what it takes.
        """
        with tempfile.TemporaryDirectory(prefix="carerelay-bench-") as folder:
            given = Stack(Path(folder), foundation=self.foundation(), only=only or None, environment=environment)
            with given as running:
                yield running

    def say(self, text: str) -> None:
        """Show how far a scenario is."""
        self.console.print(f"  {text}", style="dim", highlight=False)


class Scenario(Protocol):
    """A scenario's module. Its docstring's first paragraph is what the report says it measures."""

    measure: Callable[[Ground], Coroutine[Any, Any, Outcome]]

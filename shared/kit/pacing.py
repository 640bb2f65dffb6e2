"""How fast somebody outside may be called: a token bucket, a cap on calls in flight and a circuit breaker for each.

Local to one worker, which needs no agreement with others because a slot, and so everything with its key, belongs to one
worker at a time. Whoever takes a slot over starts with an empty bucket: what the former owner spent is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from shared.kit.decisions import Refused, Unanswered

_WHOLE = 1.0 - 1e-9
"""A token, but for what is lost in adding up its parts; the next one then has as much less."""

_NO_PLACE = 1.0
"""Seconds that are told where all places are taken; whose call ends knows better."""

_LONGEST_COOL_DOWN = 16
"""A breaker that its probe opens again stays open twice as long, up to so many times the first."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one other side allows one worker.

    ``rate`` calls a second, up to ``burst`` of them at once after a pause, at most ``concurrency`` in flight. After
    ``failures`` calls in a row without an answer it is left alone for ``cool_down`` seconds, then probed by one call.
    ``whom`` is the name under which operators see it, where several keys are shares of one other side.
    """

    rate: float
    burst: float = 1.0
    concurrency: int = 8
    failures: int = 5
    cool_down: float = 30.0
    whom: str = ""


class Breaker(StrEnum):
    """Whether somebody outside is called; the worse, the later."""

    CLOSED = "closed"
    DEFERRED = "deferred"
    """They named a time before which they want no call."""
    HALF_OPEN = "half-open"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Standing:
    """How one other side stands with one worker: ``budget`` calls may begin now, ``again_in`` seconds until one may."""

    whom: str
    breaker: Breaker
    budget: float
    in_flight: int
    again_in: float


@dataclass(slots=True)
class _Side:
    slot: int
    at: float
    allowance: Allowance
    tokens: float = 0.0
    out: float = 0.0
    out_at: float = float("-inf")
    in_flight: int = 0
    failed: int = 0
    opened: int = 0
    closed_until: float = float("-inf")
    lost: bool = False
    """Whether its slot was somebody else's, since a call was begun that is still in flight."""


class Pacer:
    """Paces the calls of one worker. ``monotonic`` is in seconds.

    Calls may begin ``ahead`` seconds before they may go out, so that one pass of a worker can begin all that go out
    until its next one.
    """

    def __init__(self, monotonic: Callable[[], float], ahead: float = 0.0) -> None:
        self._monotonic = monotonic
        self._ahead = ahead
        self._sides: dict[str, _Side] = {}

    def begin(self, key: str, slot: int, allowance: Allowance) -> float:
        """Seconds until a call may begin; where that is 0, it has begun, and ``end`` or ``take_back`` must follow."""
        now = self._monotonic()
        side = self._sides.get(key)
        if side is None:
            side = self._sides[key] = _Side(slot, now, allowance, out_at=now)
        if side.lost:
            side.lost, side.tokens, side.at = False, 0.0, now
            side.out, side.out_at = min(0.0, side.out), now
        side.allowance = allowance
        wait = self.wait(key)
        if wait == 0.0:
            side.tokens -= 1.0
            side.in_flight += 1
        return wait

    def wait(self, key: str) -> float:
        """Seconds until another call may begin, as far as is known; a place among those in flight has no time."""
        side = self._sides.get(key)
        if side is None:
            return 0.0
        now, allowance = self._monotonic(), side.allowance
        side.tokens = min(allowance.burst, side.tokens + (now - side.at) * allowance.rate)
        side.at = now
        if now < side.closed_until:
            return side.closed_until - now
        most = 1 if side.failed >= allowance.failures else allowance.concurrency
        if side.in_flight >= most:
            return _NO_PLACE
        tokens = side.tokens + self._ahead * allowance.rate
        if tokens < _WHOLE:
            return (1.0 - tokens) / allowance.rate if allowance.rate > 0 else 60.0
        return 0.0

    def room(self) -> dict[int, int]:
        """By slot, how many calls may begin now, of all that were ever called in it."""
        found: dict[int, int] = {}
        for key, side in self._sides.items():
            free = (
                int(side.tokens + self._ahead * side.allowance.rate + 1.0 - _WHOLE)
                if not side.lost and self.wait(key) == 0.0
                else 0
            )
            most = 1 if side.failed >= side.allowance.failures else side.allowance.concurrency
            found[side.slot] = found.get(side.slot, 0) + max(0, min(free, most - side.in_flight))
        return found

    def standings(self) -> list[Standing]:
        """How everybody that was ever called in our slots stands now, share by share."""
        return [self._standing(key, side) for key, side in self._sides.items() if not side.lost]

    def _standing(self, key: str, side: _Side) -> Standing:
        now, allowance = self._monotonic(), side.allowance
        left_alone, failing = now < side.closed_until, side.failed >= allowance.failures
        if left_alone:
            breaker = Breaker.OPEN if failing else Breaker.DEFERRED
        else:
            breaker = Breaker.HALF_OPEN if failing else Breaker.CLOSED
        again_in = self.wait(key)
        budget = 0.0 if left_alone else max(0.0, side.tokens)
        return Standing(allowance.whom or key, breaker, budget, side.in_flight, again_in)

    def departs_in(self, key: str) -> float:
        """Seconds that a call which has begun must still wait before it goes out; its going out is reserved.

        Between beginning and going out lies a write, of no certain length: what was held up there and what comes after
        it must not go out together.
        """
        side = self._sides.get(key)
        if side is None:
            return 0.0
        now, allowance = self._monotonic(), side.allowance
        side.out = min(allowance.burst, side.out + (now - side.out_at) * allowance.rate) - 1.0
        side.out_at = now
        return max(0.0, -side.out / allowance.rate) if allowance.rate > 0 else 0.0

    def take_back(self, key: str) -> None:
        """A call that may begin was not made."""
        side = self._sides.get(key)
        if side is not None:
            side.in_flight -= 1
            side.tokens += 1.0

    def end(self, key: str, outcome: object, allowance: Allowance) -> None:
        """A call came to its end. A refusal that names a time closes the way until then."""
        side = self._sides.get(key)
        if side is None:
            return
        now = self._monotonic()
        side.in_flight -= 1
        if isinstance(outcome, Refused) and outcome.retry_after is not None:
            side.closed_until = max(side.closed_until, now + outcome.retry_after)
        if not isinstance(outcome, Refused | Unanswered):
            side.failed = side.opened = 0
            return
        side.failed += 1
        left_alone = side.opened > 0 and now < side.closed_until
        if side.failed >= allowance.failures and not left_alone:  # Calls begun before that say nothing new.
            side.opened = min(max(1, side.opened * 2), _LONGEST_COOL_DOWN)
            side.closed_until = max(side.closed_until, now + allowance.cool_down * side.opened)

    def retain(self, slots: Collection[int]) -> None:
        """Forget whoever is in no slot of ours any more."""
        gone = [key for key, side in self._sides.items() if side.slot not in slots]
        for key in gone:
            if self._sides[key].in_flight:  # They count where the slot comes back before they end.
                self._sides[key].lost = True
            else:
                del self._sides[key]

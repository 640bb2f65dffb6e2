"""Every crash point of every role was exercised: a gate at which no process ever died proves nothing.

A crash point is a call of store or bus, before or after it, in one role's work.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.simulation.care import Care
from tests.simulation.letters import Letters
from tests.simulation.world import Faults

Point = tuple[str, str]
"""Gate and role."""

STORE_WRITE = ("store.write", "store.written")
PASSED_BY = {
    "publish": ("bus.publish", "bus.published", "store.sent"),
    "react": ("bus.fetched", "bus.commit", "bus.committed", "store.load", "store.find", *STORE_WRITE),
    "due": ("store.find", "store.load", "store.stamp", *STORE_WRITE),
    "renew": ("store.load", "store.stamp", *STORE_WRITE),
    "sweep": ("store.load", "store.find", "store.stamp", *STORE_WRITE),
    "api": ("store.load", "store.find", "store.append", *STORE_WRITE),
}
"""The gates that each role passes. A new one that some play comes to must be added, and then crashed at.

A sweep renews the lease before, as the loop of a process does; hence its writes and its stamp. Due work stamps what it
takes up in a slot whose takeover is not over.
"""

POINTS = frozenset((gate, role) for role, gates in PASSED_BY.items() for gate in gates)
ONLY_CARE = frozenset({("store.find", "api"), ("store.append", "api")})
"""The toy service lists nothing and keeps no audit; for these the six services are played."""

LETTERS = 400
CARE = 12
"""How many seeds it may take; about a third as many do it."""


def _role(kind: str) -> str:
    """Requests from outside are the API's work."""
    return "api" if kind == "outside" else kind


def _points(counted: Iterable[Point]) -> set[Point]:
    return {(gate, _role(kind)) for gate, kind in counted}


def _named(points: Iterable[Point]) -> list[str]:
    return sorted(f"{role} at {gate}" for gate, role in points)


async def test_the_points_that_roles_pass_are_the_declared_ones() -> None:
    passed: set[Point] = set()
    for seed in range(10):
        letters = Letters(seed, faults=Faults.none())
        await letters.play()
        passed |= _points(letters.world.passed)
    for seed in range(2):
        care = Care(seed, faults=Faults.none())
        await care.play()
        passed |= _points(care.world.passed)
    assert not passed - POINTS, f"not declared: {_named(passed - POINTS)}"
    assert not POINTS - passed, f"declared, but never passed: {_named(POINTS - passed)}"


async def test_a_process_died_at_every_crash_point_of_every_role() -> None:
    passed: set[Point] = set()
    crashed: set[Point] = set()
    for seed in range(LETTERS):
        letters = Letters(seed, faults=Faults(crash=0.02))
        await letters.play()
        passed |= _points(letters.world.passed)
        crashed |= _points(letters.world.crashed_at)
        if crashed >= POINTS - ONLY_CARE:
            print(f"{seed + 1} seeds of letters")
            break
    for seed in range(CARE):
        if crashed >= POINTS:
            break
        care = Care(seed, faults=Faults(crash=0.02))
        await care.play()
        passed |= _points(care.world.passed)
        crashed |= _points(care.world.crashed_at)
    assert not passed - POINTS, f"not declared: {_named(passed - POINTS)}"
    if missing := POINTS - crashed:
        pytest.fail(f"nobody ever died there: {_named(missing)}")

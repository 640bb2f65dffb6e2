"""A process of every role has died at every point where it calls the store or the bus, and everything still held."""

from __future__ import annotations

from tests.simulation.letters import Letters
from tests.simulation.world import Faults

SEEDS = 400
ROLES = frozenset({"publish", "react", "due", "renew", "sweep", "api"})


async def test_every_role_has_crashed_at_every_gate_that_it_passes() -> None:
    passed: set[tuple[str, str]] = set()
    crashed: set[tuple[str, str]] = set()
    for seed in range(SEEDS):
        letters = Letters(seed, faults=Faults(crash=0.03))
        await letters.play()
        passed |= set(letters.world.passed)
        crashed |= set(letters.world.crashed_at)
        if seed > 60 and passed <= crashed:
            break
    assert {role for _, role in passed} >= ROLES, "a role was never at work"
    assert not passed - crashed, f"never crashed at {sorted(passed - crashed)} in {SEEDS} seeds"

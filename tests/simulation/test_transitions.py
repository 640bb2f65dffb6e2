"""Every way between states that a service declares is taken by some walk through that service, and none other is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.simulation import walks
from tests.simulation.walking import Walk, explore

MOST = 1500
"""Walks before a way that nobody took counts as one that cannot be taken; two hundred are usual."""

Kind = Callable[[int], Walk]


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, Kind]:
    """The walks by service."""
    return {
        "intake": walks.IntakeWalk,
        "referrals": walks.ReferralsWalk,
        "prior_authorization": partial(walks.AuthorizationWalk, tmp_path),
        "scheduling": walks.SchedulingWalk,
        "notifications": walks.NotificationsWalk,
        "directory": walks.DirectoryWalk,
    }


@pytest.mark.parametrize(
    "service", ["intake", "referrals", "prior_authorization", "scheduling", "notifications", "directory"]
)
async def test_every_declared_transition_is_taken_and_no_other(service: str, kinds: dict[str, Kind]) -> None:
    declared, taken = await explore(kinds[service], MOST)
    missing = [f"{kind}: {before} to {after}" for kind, before, after in sorted(declared - taken)]
    assert not missing, f"never taken: {missing}"
    assert taken == declared

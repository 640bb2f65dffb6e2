"""Every way between states that a service declares is taken by some walk through that service, and none other is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from services.directory import service as directory
from services.referrals import service as referrals
from services.scheduling import service as scheduling
from tests.simulation import walks
from tests.simulation.walking import Alone, Way, explore

MOST = 1500
"""Walks before a way that nobody took counts as one that cannot be taken; four hundred are usual."""


Exploration = Callable[[], Awaitable[tuple[set[Way], set[Way]]]]


@pytest.fixture
def explorations(tmp_path: Path) -> dict[str, Exploration]:
    """How each service is walked through."""
    deduplicates = cycle((True, False))
    return {
        "intake": lambda: explore(walks.IntakePlace, walks.IntakeWalk, MOST),
        "referrals": lambda: explore(partial(Alone, referrals.Settings, referrals.build), walks.ReferralsWalk, MOST),
        "prior_authorization": lambda: explore(partial(walks.authorizations, tmp_path), walks.AuthorizationWalk, MOST),
        "scheduling": lambda: explore(
            partial(Alone, scheduling.Settings, scheduling.build), walks.SchedulingWalk, MOST
        ),
        "notifications": lambda: explore(lambda: walks.NotificationsPlace(deduplicates), walks.NotificationsWalk, MOST),
        "directory": lambda: explore(partial(Alone, directory.Settings, directory.build), walks.DirectoryWalk, MOST),
        "webhooks": lambda: explore(walks.WebhooksPlace, walks.WebhooksWalk, MOST),
    }


@pytest.mark.parametrize(
    "service", ["intake", "referrals", "prior_authorization", "scheduling", "notifications", "directory", "webhooks"]
)
async def test_every_declared_transition_is_taken_and_no_other(
    service: str, explorations: dict[str, Exploration]
) -> None:
    declared, taken = await explorations[service]()
    missing = [f"{kind}: {before} to {after}" for kind, before, after in sorted(declared - taken)]
    assert not missing, f"never taken: {missing}"
    assert taken == declared

"""The kit's guarantees under faults, on the toy service: thousands of small worlds, each from a printed seed."""

from __future__ import annotations

import pytest

from tests.simulation.letters import Letters

SEEDS = 150


@pytest.mark.parametrize("block", range(3))
async def test_letters_survive_whatever_a_seed_does(block: int) -> None:
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        await Letters(seed).play()

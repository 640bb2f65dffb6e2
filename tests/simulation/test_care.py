"""Six services, the demo's patients, and whatever a seed does to them: faults change timing, never the ending."""

from __future__ import annotations

import os

import pytest

from tests.simulation.care import Care

SEEDS = int(os.environ.get("SEEDS", "500"))
"""How many worlds are played; ``FIRST_SEED`` moves on to others."""

FIRST = int(os.environ.get("FIRST_SEED", "1"))
BLOCK = 20


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BLOCK))
async def test_every_story_ends_as_its_script_says_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, min(first + BLOCK, FIRST + SEEDS)):
        await Care(seed).play()

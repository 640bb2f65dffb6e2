"""Each guarantee of the kit, switched off, makes some seed fail."""

from __future__ import annotations

import pytest

from tests.simulation.letters import Letters
from tests.simulation.mutations import MUTATIONS, Mutation

SEEDS = 300


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
async def test_without_this_some_seed_fails(mutation: Mutation) -> None:
    for seed in range(SEEDS):
        with mutation():
            try:
                await Letters(seed, patience=60).play()
            except Exception as error:
                print(f"seed {seed}: {type(error).__name__}: {error}")
                return
    pytest.fail(f"{SEEDS} seeds did not notice: {mutation.__doc__}")

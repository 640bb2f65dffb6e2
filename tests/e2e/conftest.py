"""The whole embedded stack for the tests here, started once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.embedded import Stack
from tests.e2e.evidence import Books


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, store, simulators and six services. What a test kills it also restarts."""
    # As in the demo: moving the clock wakes the workers at once, so they need not look often by themselves.
    with Stack(tmp_path_factory.mktemp("stack"), environment={"POLL_SECONDS": "1"}) as stack:
        yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Stack:
    """The shared stack, with every process alive."""
    running_stack.check()
    return running_stack


@pytest.fixture
async def books(stack: Stack) -> AsyncIterator[Books]:
    """What the shared stack's stores and ledgers hold."""
    opened = Books(stack)
    yield opened
    await opened.close()

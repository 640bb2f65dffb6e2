"""The whole stack for the tests here, started once and stopped behind the last of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.embedded import Stack
from deploy.embedded.foundation import Foundation
from tests.e2e.evidence import Books


@pytest.fixture(scope="package")
def running_stack(tmp_path_factory: pytest.TempPathFactory, stack_kind: Foundation) -> Iterator[Stack]:
    """Broker, store, simulators and all services. What a test kills it also restarts."""
    # As in the demo: moving the clock wakes the workers at once, so they need not look often by themselves.
    environment = {"POLL_SECONDS": "1"}
    with Stack(tmp_path_factory.mktemp("stack"), foundation=stack_kind, environment=environment) as stack:
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

"""A real broker and a real store for the tests here: the foundation of the stack that STACK names, on free ports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.embedded import FOUNDATION, Stack
from deploy.embedded.foundation import Foundation


@dataclass(frozen=True)
class StoreServer:
    """A store that can be killed and started again on the same port and data."""

    stack: Stack

    @property
    def uri(self) -> str:
        """Its URI, the same before and after."""
        return self.stack.mongodb_uri

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self.stack.kill("store")

    def start(self) -> None:
        """Start it again on its data; returns when it accepts connections."""
        self.stack.restart("store")


@pytest.fixture(scope="package")
def foundation(tmp_path_factory: pytest.TempPathFactory, stack_kind: Foundation) -> Iterator[Stack]:
    """Broker and store, shared by all tests that break neither."""
    with Stack(tmp_path_factory.mktemp("foundation"), foundation=stack_kind, only=FOUNDATION) as stack:
        yield stack


@pytest.fixture
def broker_address(foundation: Stack) -> str:
    """``host:port`` of the shared Kafka-protocol broker."""
    foundation.check()
    return foundation.broker_address


@pytest.fixture
def mongodb_uri(foundation: Stack) -> str:
    """The shared store's URI. Each test takes a database of its own."""
    foundation.check()
    return foundation.mongodb_uri


@pytest.fixture
def store_server(tmp_path_factory: pytest.TempPathFactory, stack_kind: Foundation) -> Iterator[StoreServer]:
    """A store of this test's own, to be killed."""
    with Stack(tmp_path_factory.mktemp("store-server"), foundation=stack_kind, only=["store"]) as stack:
        yield StoreServer(stack)

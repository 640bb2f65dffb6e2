"""The bus in memory keeps the promises of the real one."""

from __future__ import annotations

import pytest

from shared.kit.bus.kafka import partition_of
from shared.kit.bus.port import Bus
from shared.kit.testing.bus_suite import JAVA_MURMUR2, BusSuite, Connect, java_partition
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus


class TestMemoryBus(BusSuite):
    @pytest.fixture
    def connect(self) -> Connect:
        broker = MemoryBroker(3)

        def connect() -> Bus:
            return MemoryBus(broker, refuses=lambda message: len(message.value) > 1024 * 1024)

        return connect

    @pytest.fixture
    def topic(self) -> str:
        return "suite"


@pytest.mark.parametrize("key", list(JAVA_MURMUR2))
@pytest.mark.parametrize("partitions", [1, 2, 3, 12, 50])
def test_a_key_has_the_partition_that_kafkas_own_client_gives_it(key: str, partitions: int) -> None:
    assert partition_of(key, list(range(partitions))) == java_partition(key, partitions)

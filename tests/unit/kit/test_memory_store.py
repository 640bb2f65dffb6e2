"""The store in memory keeps the promises of the real one."""

from __future__ import annotations

import pytest

from shared.kit.store.port import Store
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()

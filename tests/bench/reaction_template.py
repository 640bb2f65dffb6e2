"""What the real service stores for one request, for a floor that must store the same without being written anew with
every field that a model gains."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx

from services.prior_authorization import service
from services.prior_authorization.model import Authorization
from shared.kit.chassis import Chassis
from shared.kit.clock import FrozenClock
from shared.kit.service import REACTIONS
from shared.kit.store.mongodb import encode
from shared.kit.telemetry import Telemetry
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus
from shared.kit.testing.memory_store import MemoryStore
from tests.bench.reaction_payload import requests


async def template() -> bytes:
    """Have the service take in one request, in memory: the Authorization that it stores, as BSON."""
    settings = service.Settings()
    store, bus = MemoryStore(), MemoryBus(MemoryBroker(), running=False)
    async with httpx.AsyncClient() as http:
        chassis = Chassis(
            service.build(settings, http),
            settings,
            store=store,
            bus=bus,
            clock=FrozenClock(datetime.now(UTC)),
            http=http,
            telemetry=Telemetry.quiet(),
            ids=lambda: "template",
            role=REACTIONS,
        )
        await chassis.prepare()
        for reader in chassis.readers:
            bus.subscribe(reader.group, reader.topics, reader.handle)
        await bus.start()
        await bus.publish(requests(1, 0, 0.0))
        for group in bus.groups:
            await bus.step(group)
    (stored,) = await store.find(Authorization.collection, {})
    return encode(stored)

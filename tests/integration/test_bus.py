"""The real bus: the suite every bus passes, and what only a broker's wire can bring."""

from __future__ import annotations

from itertools import count
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from deploy.embedded.foundation import Foundation
from shared.kit.bus.envelope import Unreadable, read
from shared.kit.bus.kafka import KafkaBus
from shared.kit.bus.port import Bus, Message, PublishFailed
from shared.kit.testing.bus_suite import PARTITIONS, BusSuite, Connect, Reader, put


@pytest.fixture
def topic() -> str:
    return f"suite-{uuid4().hex}"


@pytest.fixture
def connect(broker_address: str, stack_kind: Foundation) -> Connect:
    numbers = count(1)
    idempotence = stack_kind.environment["KAFKA_IDEMPOTENCE"] == "true"

    def connect() -> Bus:
        client_id = f"suite-{next(numbers)}"
        return KafkaBus(
            broker_address, client_id=client_id, partitions=PARTITIONS, idempotence=idempotence, watch_every=0.2
        )

    return connect


class TestKafkaBus(BusSuite):
    """On the broker of the stack that STACK names."""


async def test_records_without_key_value_or_headers_come_to_the_handler_and_are_told_as_unreadable(
    connect: Connect, topic: str, broker_address: str
) -> None:
    bus, reader = connect(), Reader()
    await bus.ensure([topic])
    bus.subscribe(f"{topic}.group", [topic], reader)
    await bus.start()
    producer = AIOKafkaProducer(bootstrap_servers=broker_address)
    await producer.start()

    await producer.send_and_wait(topic, None, key=b"no value", partition=0)
    await producer.send_and_wait(topic, b"no key", key=None, partition=0)
    await producer.send_and_wait(topic, b"{}", key=b"\xff\xfe", partition=0)
    await producer.send_and_wait(topic, b"{}", key=b"k", partition=0, headers=[("ce_type", None), ("x", b"\xff")])
    await producer.stop()
    await put(bus, [Message(topic, "after", b"1")])
    await reader.until_taken(5)
    await bus.stop()

    strange = [record for record in reader.taken if record.key != b"after"]
    assert [(record.key, record.value) for record in strange] == [
        (b"no value", None),
        (None, b"no key"),
        (b"\xff\xfe", b"{}"),
        (b"k", b"{}"),
    ]
    assert all(isinstance(value, bytes) for record in strange for _, value in record.headers)
    assert all(isinstance(read(record, {}), Unreadable) for record in strange)


async def test_publishing_without_a_connection_fails_and_raises_nothing(connect: Connect, topic: str) -> None:
    (result,) = await connect().publish([Message(topic, "a", b"1")])

    assert isinstance(result, PublishFailed)

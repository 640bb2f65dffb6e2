"""The subscriber in the README, run as it stands there."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from deploy.demo.cases import DEFAULT_FOLDER, load
from deploy.demo.player import Story
from deploy.embedded import Stack
from tests.conftest import ROOT
from tests.e2e.evidence import consuming, outside

TOPIC = "referrals.events"
GROUP = "my-system"
LINES = 15
SECONDS = 60


def subscriber() -> str:
    """The program in the README's section about subscribing."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    return str(program)


def test_it_has_fifteen_lines() -> None:
    assert len([line for line in subscriber().splitlines() if line.strip()]) <= LINES


async def test_it_prints_each_event_of_a_referral_once_although_some_come_twice(stack: Stack, tmp_path: Path) -> None:
    await _refer_somebody(stack)
    records = await _records(stack)
    await _send_again(stack, records[-5:])
    records = await _records(stack)
    program = tmp_path / "subscriber.py"
    program.write_text(subscriber(), encoding="utf-8")
    arguments = [str(program), stack.broker_address]
    running = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(SECONDS):
            await _has_read(stack, records)
    finally:
        running.terminate()
        printed, _ = await running.communicate()
    seen = Counter(tuple(line.split(" ", 2)) for line in printed.decode().splitlines())
    expected = {(_header(r, "ce_type"), _header(r, "ce_subject"), (r.value or b"").decode()) for r in records}
    assert len(expected) < len(records), "nothing came twice"
    assert set(seen) == expected
    assert set(seen.values()) == {1}


async def _refer_somebody(stack: Stack) -> None:
    async with outside(stack) as (api, conductor):
        story = Story(load(DEFAULT_FOLDER)[0].copy(901), api, "subscribing", conductor.now)
        await story.turn()
        await conductor.settle()


async def _records(stack: Stack) -> list[ConsumerRecord]:
    async with consuming(stack, [TOPIC]) as batches:
        return [record async for records in batches for record in records]


async def _send_again(stack: Stack, records: list[ConsumerRecord]) -> None:
    """What a publisher does whose acknowledgement was lost."""
    async with AIOKafkaProducer(bootstrap_servers=stack.broker_address) as producer:
        for record in records:
            await producer.send_and_wait(
                TOPIC, record.value, key=record.key, partition=record.partition, headers=list(record.headers)
            )


async def _has_read(stack: Stack, records: list[ConsumerRecord]) -> None:
    """Return when the subscriber's group has committed everything."""
    ends = {TopicPartition(TOPIC, record.partition): 0 for record in records}
    for record in records:
        place = TopicPartition(TOPIC, record.partition)
        ends[place] = max(ends[place], record.offset + 1)
    async with AIOKafkaConsumer(
        bootstrap_servers=stack.broker_address, group_id=GROUP, enable_auto_commit=False
    ) as watching:
        watching.assign(list(ends))
        for place, end in ends.items():
            while (await watching.committed(place) or 0) < end:
                pass  # asking takes its time


def _header(record: ConsumerRecord, name: str) -> str:
    value: bytes = dict(record.headers)[name]
    return value.decode()

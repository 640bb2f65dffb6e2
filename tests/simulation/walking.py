"""Random walks through one whole service: real API, real events, frozen time; what people and others do is a seed's.

A walk goes the usual way for a while, then anything may happen. It shows which ways between states are ever taken, and
that whatever comes, nothing is parked, nothing fails, and what has ended rests.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import httpx

from shared.contracts.base import Event
from shared.kit.auth import Role
from shared.kit.document import Document, derived_id
from shared.kit.parking import Parked
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.testing.harness import Harness
from shared.kit.testing.memory_bus import MemoryBus

S = TypeVar("S", bound=KitSettings)
Act = Callable[[], Awaitable[object]]
Way = tuple[str, str, str]
"""A document type, and the states that it goes between."""

SURPRISES = 5
"""How many acts of any kind follow the first surprise."""


TOGETHER = 25
"""How many walks share a service: it takes longer to make one than to walk through it."""


class Place(Protocol):
    """Where walks go: a service, and what surrounds it."""

    @property
    def harness(self) -> Harness:
        """The service."""
        ...

    async def settle(self) -> None:
        """Everything that is due happens."""
        ...


P = TypeVar("P", bound=Place)


class Alone:
    """A service that calls nobody."""

    def __init__(self, settings: type[S], build: Callable[[S, httpx.AsyncClient], Service]) -> None:
        self.harness = Harness(settings, build)

    async def settle(self) -> None:
        """Everything that is due happens."""
        await self.harness.settle()


class Walk(Generic[P]):
    """One case in one service, pushed about by a seed. What ids it uses follow from the seed."""

    def __init__(self, place: P, seed: int) -> None:
        self.place = place
        self.harness = place.harness
        self.random = random.Random(seed)
        self.seed = seed
        self._sequences: dict[str, int] = {}

    def id(self, *parts: str) -> str:
        """The id of a thing of this walk."""
        return derived_id("walk", str(self.seed), *parts)

    def usual(self) -> Sequence[Act]:
        """The way that most go, in order."""
        raise AssertionError("a walk has a usual way")

    def surprises(self) -> Sequence[Act]:
        """What else may happen, at any time."""
        raise AssertionError("a walk has surprises")

    async def play(self) -> None:
        """The usual way up to somewhere, one surprise, then anything; it must rest in good order.

        From seed to seed each surprise comes after each beginning.
        """
        usual = self.usual()
        surprises = [*self.surprises(), *usual]
        after = self.seed % (len(usual) + 1)
        first = surprises[self.seed // (len(usual) + 1) % len(surprises)]
        for act in usual[:after]:
            await act()
            await self.place.settle()
        for act in (first, *self.random.choices(surprises, k=SURPRISES)):
            await act()
            await self._go_on()
        await self.place.settle()
        await self._check()

    async def _go_on(self) -> None:
        """All that follows happens before the next act, or none of it, or what events lead to and no due work."""
        pace = self.random.choice(("settled", "at once", "events"))
        if pace == "settled":
            await self.place.settle()
        elif pace == "events":
            await deliver(self.harness)

    async def hear(self, event: Event, subject: str) -> None:
        """Another service's event, the next of its document."""
        self._sequences[subject] = self._sequences.get(subject, 0) + 1
        await self.harness.arrive(event, subject, self._sequences[subject])

    async def ask(self, role: Role, method: str, path: str, body: object = None) -> Any:
        """A request, which may be refused but not fail; the answer's body."""
        headers = self.harness.key() if method == "POST" else {}
        async with self.harness.client(role, subject="payer-simulator") as client:
            answer = await client.request(method, path, json=body, headers=headers)
        assert answer.status_code < 500, f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.status_code not in (401, 403, 405), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def pass_hours(self, hours: float) -> Act:
        """Time goes by."""

        async def pass_time() -> None:
            self.harness.clock.pass_(hours * 3600)

        return pass_time

    async def _check(self) -> None:
        for parked in await self.harness.all(Parked):
            assert not parked.entries, f"{parked.key} is parked: {[entry.reason for entry in parked.entries]}"
            assert parked.timer is None, f"{parked.key} is parked: {parked.reason}"
        for kind in documents_of(self.harness.chassis.service):
            for document in await self.harness.all(kind):
                _check_waiting(document)


async def deliver(harness: Harness) -> None:
    """Publish and react until there are no more events, as where the process for due work is away."""
    bus = harness.chassis.bus
    assert isinstance(bus, MemoryBus)
    await harness.start()
    did = 1
    while did:
        did = await harness.chassis.publisher.flush()
        for group in bus.groups:
            did += await bus.step(group)


def _check_waiting(document: Document) -> None:
    name = f"{type(document).__name__} in {getattr(document, 'state', None)}"
    wait = document.wait
    deadline = document.timers.get("deadline")
    assert deadline == (wait.deadline if wait is not None and wait.escalated_at is None else None), name
    if document.ended:
        assert wait is None, f"{name} waits for {wait}"
        left = set(document.timers) - set(document.attempts)
        assert not left, f"{name} still has {left}"


def documents_of(service: Service) -> list[type[Document]]:
    """The service's documents that have ways to go."""
    return [kind for kind in service.documents if any(kind.transitions.values())]


def declared(service: Service) -> set[Way]:
    """All ways that the tables of a service declare."""
    return {
        (kind.__name__, str(before), str(after))
        for kind in documents_of(service)
        for before, ways in kind.transitions.items()
        for after in ways
    }


@contextmanager
def watching() -> Iterator[set[Way]]:
    """The ways that are taken meanwhile."""
    seen: set[Way] = set()
    before = Document.watch
    Document.watch = lambda kind, at, to: seen.add((kind, str(at), str(to)))
    try:
        yield seen
    finally:
        Document.watch = before


async def explore(places: Callable[[], P], kind: Callable[[P, int], Walk[P]], most: int) -> tuple[set[Way], set[Way]]:
    """Walk by seed after seed until every declared way was taken, or ``most`` walks are done.

    Returns what is declared and what was taken. A failure names its seed.
    """
    place = places()
    ways = declared(place.harness.chassis.service)
    with watching() as taken:
        for seed in range(most):
            if seed % TOGETHER == 0:
                place = places()
            try:
                await kind(place, seed).play()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            if ways <= taken:
                break
    return ways, taken

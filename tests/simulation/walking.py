"""Random walks through one whole service: real API, real events, frozen time; what people and others do is a seed's.

A walk goes the usual way for a while, then anything may happen. It shows which ways between states are ever taken, and
that whatever comes, nothing is parked, nothing fails, and what has ended rests.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from shared.contracts.base import Event
from shared.kit.auth import Role
from shared.kit.document import Document
from shared.kit.parking import Parked
from shared.kit.service import Service
from shared.kit.testing.harness import Harness

Act = Callable[[], Awaitable[object]]
Way = tuple[str, str, str]
"""A document type, and the states that it goes between."""

SURPRISES = 6
"""How many acts of any kind follow the usual ones."""


class Walk:
    """One service, pushed about by a seed."""

    harness: Harness

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._sequences: dict[str, int] = {}

    def usual(self) -> Sequence[Act]:
        """The way that most go, in order."""
        raise AssertionError("a walk has a usual way")

    def surprises(self) -> Sequence[Act]:
        """What else may happen, at any time."""
        raise AssertionError("a walk has surprises")

    async def settle(self) -> None:
        """Everything that is due happens."""
        await self.harness.settle()

    async def play(self) -> None:
        """The usual way up to somewhere, then anything; it must rest in good order."""
        usual = self.usual()
        surprises = [*usual, *self.surprises()]
        acts = [*usual[: self.random.randint(0, len(usual))], *self.random.choices(surprises, k=SURPRISES)]
        for act in acts:
            await act()
            await self.settle()
        await self._check()

    async def hear(self, event: Event, subject: str) -> None:
        """Another service's event, the next of its document."""
        self._sequences[subject] = self._sequences.get(subject, 0) + 1
        await self.harness.arrive(event, subject, self._sequences[subject])

    async def ask(self, role: Role, method: str, path: str, body: object = None) -> Any:
        """A request, which may be refused but not fail; the answer's body."""
        headers = self.harness.key() if method == "POST" else {}
        async with self.harness.client(role) as client:
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


async def explore(kind: Callable[[int], Walk], most: int) -> tuple[set[Way], set[Way]]:
    """Walk by seed after seed until every declared way was taken, or ``most`` walks are done.

    Returns what is declared and what was taken. A failure names its seed.
    """
    with watching() as taken:
        for seed in range(most):
            walk = kind(seed)
            ways = declared(walk.harness.chassis.service)
            try:
                await walk.play()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            if ways <= taken:
                break
    return ways, taken

"""Each service process is killed at work while fifty patients flow: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, islice

from deploy.demo.api import Api
from deploy.demo.cases import DEFAULT_FOLDER, Case, load
from deploy.demo.player import Story, play_all
from deploy.embedded import Stack
from services.notifications.model.delivery import Delivery
from shared.contracts.intake import Channel
from tests.checks import care
from tests.checks.events import check_nothing_is_overdue, check_sequences
from tests.e2e.evidence import WIRING, Books, furnish_anew, outside, topics

PATIENTS = 50

BY_MAIL = "02-approved-at-once"
"""A mail whose last answer was lost with the process is unknown, and its story may not insist that it went."""

VICTIMS = (
    ("intake", "requested"),
    ("directory", "requested"),
    ("referrals", "awaiting-authorization"),
    ("prior_authorization", "awaiting-acceptance"),
    ("scheduling", "awaiting-appointment"),
    ("notifications", "awaiting-visit"),
)
"""Each service, and the state that some referral must have reached before it is killed."""


def patients(number: int) -> list[Case]:
    """The demo's cases over and over, each time of other people."""
    cases = [_not_insisting(case) if case.name == BY_MAIL else case for case in load(DEFAULT_FOLDER)]
    copies = (case.copy(round) for round in count(1) for case in cases)
    return list(islice(copies, number))


def _not_insisting(case: Case) -> Case:
    assert case.scenario is not None
    return dataclasses.replace(case, scenario=case.scenario.model_copy(update={"messages": {}}))


class Flow:
    """What the stories tell about how far they are, as signals to wait for."""

    def __init__(self) -> None:
        self._reached: dict[str, asyncio.Event] = {}

    def __call__(self, stories: Sequence[Story], now: datetime) -> None:
        """Take in how the stories stand."""
        for line in (line for story in stories for line in story.lines):
            self.reached(line.state).set()

    def reached(self, state: str) -> asyncio.Event:
        """Set once some referral was seen in ``state``."""
        return self._reached.setdefault(state, asyncio.Event())


@dataclass
class Deaths:
    """Who was killed, and which messages were being sent at that moment."""

    stack: Stack
    api: Api
    books: Books
    killed: list[str] = field(default_factory=list)
    in_flight: set[str] = field(default_factory=set)

    async def of_each_service_in_turn(self, flow: Flow) -> None:
        """Kill each service while it works, and start it again."""
        for victim, state in VICTIMS:
            await flow.reached(state).wait()
            await self._working(victim)
            await self._kill(victim)
            await asyncio.to_thread(self.stack.restart, victim)

    async def _working(self, victim: str) -> None:
        """Return while the victim has something in work."""
        while not (await self.api.get(victim, "/pulse", "operator", stored="false"))["busy"]:
            pass

    async def _kill(self, victim: str) -> None:
        pid = self.stack.processes()[victim].pid
        assert pid is not None
        # Held still first, so that what was in flight when it died can be read.
        os.kill(pid, signal.SIGSTOP)
        if victim == "notifications":
            self.in_flight |= {one.id for one in await self.books.all(victim, Delivery) if one.attempts}
        await asyncio.to_thread(self.stack.kill, victim, signal.SIGKILL)
        self.killed.append(victim)


async def test_fifty_patients_come_to_their_ends_while_each_service_is_killed_in_turn(
    stack: Stack, books: Books
) -> None:
    flow = Flow()
    async with outside(stack) as (api, conductor):
        deaths = Deaths(stack, api, books)
        await furnish_anew(stack, api, conductor, "killing", slots_a_day=18)
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(deaths.of_each_service_in_turn(flow))
            stories = await play_all(patients(PATIENTS), api, conductor, run="killing", told=flow)
            killing.cancel()
        assert deaths.killed == [victim for victim, _ in VICTIMS], "somebody was never at work when it was its turn"
        await conductor.settle()
    stack.check()
    _every_story_ended_as_its_script_says(stories)
    await _the_books_are_right(books, deaths.in_flight)
    await _every_event_was_published_once_and_in_order(stack, books)


def _every_story_ended_as_its_script_says(stories: Sequence[Story]) -> None:
    assert len(stories) == PATIENTS
    wrong = {line.case: (line.state, line.faults) for s in stories for line in s.lines if not line.as_expected}
    assert not wrong
    assert [story.case.name for story in stories if not story.lines] == []


async def _the_books_are_right(books: Books, in_flight: set[str]) -> None:
    """Referrals end or wait, no bookings overlap, payer and gateway agree; only a mail may be unknown, if in flight."""
    payer, gateway = await books.ledgers()
    held = await books.held()
    assert len(held.referrals) >= PATIENTS

    def may_be_unknown(delivery: Delivery) -> bool:
        return delivery.channel is Channel.EMAIL and delivery.id in in_flight

    care.check_care(held, payer, gateway, books.clock.now(), may_be_unknown=may_be_unknown)


async def _every_event_was_published_once_and_in_order(stack: Stack, books: Books) -> None:
    """Per document 1..n, n the last that it recorded; outboxes are empty, and nothing that is due is left undone."""
    records = await topics(stack)
    for service in WIRING:
        stored = await books.stored(service)
        own = [record.published for name, told in records.items() if name.startswith(f"{service}.") for record in told]
        recorded = sum(raw["sequence"] for kind in stored.values() for raw in kind.values())
        assert own or not recorded, f"{service} published nothing"
        check_sequences(service, stored, own)
        check_nothing_is_overdue(service, stored, books.clock.now())

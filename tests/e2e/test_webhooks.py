"""A receiver of webhooks that is down for an hour gets everything afterwards, in order per referral, rightly signed."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
from standardwebhooks.webhooks import Webhook

from deploy.demo.api import Api
from deploy.demo.cases import DEFAULT_FOLDER, load
from deploy.demo.conductor import Conductor
from deploy.demo.player import Story
from deploy.embedded import Stack
from deploy.embedded.ports import LOOPBACK, free_ports
from services.webhooks.reactions import SUBSCRIBABLE
from shared.kit.clock import OffsetClock
from tests.e2e.evidence import consuming, outside

TOPIC = "referrals.events"
TYPES = sorted(type for type, event in SUBSCRIBABLE.items() if event.topic == TOPIC)
DOWN = timedelta(hours=1)
SECONDS = 60
PATIENTS = (931, 932, 933, 934)
KILLS = 3
OTHERS = tuple(range(941, 941 + 2 * KILLS))


class Subscriber:
    """Another team's receiver: a real server, which can be down; it keeps what it verified, in the order it came."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.secret = ""
        self.took: list[dict[str, Any]] = []
        self.refused: list[str] = []

    @property
    def url(self) -> str:
        """Its address, up or down."""
        return f"http://{LOOPBACK}:{self.port}/hooks"

    def by_place(self) -> dict[tuple[str, int], Any]:
        """What it took, by subject and sequence."""
        return {(body["subject"], int(body["sequence"])): body["data"] for body in self.took}

    def by_referral(self) -> dict[str, list[int]]:
        """The sequences of each subject, as they came."""
        found: dict[str, list[int]] = defaultdict(list)
        for body in self.took:
            found[body["subject"]].append(int(body["sequence"]))
        return found

    @contextmanager
    def up(self) -> Iterator[None]:
        """Listen inside the block."""
        took, refused, secret = self.took, self.refused, self.secret

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    took.append(Webhook(secret).verify(body, dict(self.headers)))
                    self.send_response(204)
                except Exception as error:
                    refused.append(repr(error))
                    self.send_response(400)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer((LOOPBACK, self.port), Handler)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@dataclass(frozen=True)
class Subscribed:
    """A subscriber whose endpoint is registered, and patients whose referrals it will be told of."""

    stack: Stack
    subscriber: Subscriber
    api: Api
    conductor: Conductor
    stories: list[Story]
    before: Set[tuple[str, int]]

    async def all_taken(self) -> dict[tuple[str, int], Any]:
        """What was published since it is registered, once the subscriber has all of it."""
        wanted = {key: data for key, data in (await _published(self.stack)).items() if key not in self.before}
        await self.until(lambda: len(self.subscriber.by_place()) >= len(wanted))
        return wanted

    async def until_more(self, came: int) -> None:
        """Return when the subscriber took more than so many."""
        await self.until(lambda: len(self.subscriber.took) > came)

    async def until(self, met: Callable[[], bool]) -> None:
        """Return when something has come; asking the service takes its time meanwhile."""
        async with asyncio.timeout(SECONDS):
            while not met():
                await self.api.get("webhooks", "/pulse", "operator")


@asynccontextmanager
async def subscribed(stack: Stack, run: str, patients: Sequence[int]) -> AsyncIterator[Subscribed]:
    """Its endpoint is taken away behind the block."""
    subscriber = Subscriber()
    async with outside(stack) as (api, conductor):
        await conductor.settle()
        before = (await _published(stack)).keys()
        endpoint = await _register(stack, subscriber)
        stories = [Story(load(DEFAULT_FOLDER)[0].copy(n), api, run, conductor.now) for n in patients]
        try:
            yield Subscribed(stack, subscriber, api, conductor, stories, before)
        finally:
            await _post(stack, f"/endpoints/{endpoint}/remove", {})


async def test_a_receiver_that_is_down_for_an_hour_gets_everything_afterwards_in_order_and_signed(stack: Stack) -> None:
    clock = OffsetClock(stack.clock_offset_file)
    async with subscribed(stack, "webhooks", PATIENTS) as play:
        subscriber, stories, conductor = play.subscriber, play.stories, play.conductor
        with subscriber.up():
            await _refer(stories[:1], conductor)
            await play.until_more(0)
        came_before = len(subscriber.took)
        for quarter in range(4):
            await _refer([stories[quarter], *stories[:1]], conductor)
            clock.advance_to(clock.now() + DOWN / 4)
        assert len(subscriber.took) == came_before
        with subscriber.up():
            clock.advance_to(clock.now() + timedelta(minutes=20))
            await conductor.settle()
            wanted = await play.all_taken()

    assert subscriber.refused == []
    assert len(subscriber.took) - came_before > len(PATIENTS)
    assert subscriber.by_place() == wanted
    by_referral = subscriber.by_referral()
    assert len(by_referral) >= len(PATIENTS)
    for sequences in by_referral.values():  # numbers between them are of events on private topics
        assert sequences == sorted(set(sequences))


async def test_the_service_is_killed_while_it_delivers_and_nothing_is_lost_or_out_of_order(stack: Stack) -> None:
    async with subscribed(stack, "webhooks-killed", OTHERS) as play:
        subscriber = play.subscriber
        with subscriber.up():
            for kill in range(KILLS):
                came = len(subscriber.took)
                some = play.stories[kill * 2 : kill * 2 + 2]
                async with asyncio.TaskGroup() as group:
                    group.create_task(_refer([*some, *some], play.conductor))
                    await play.until_more(came)
                    await asyncio.to_thread(stack.kill, "webhooks")
                    await asyncio.to_thread(stack.restart, "webhooks")
            wanted = await play.all_taken()

    assert subscriber.refused == []
    assert subscriber.by_place() == wanted
    by_referral = subscriber.by_referral()
    assert len(by_referral) >= len(OTHERS)
    for sequences in by_referral.values():  # what was on its way when it died comes again: one event of a referral
        assert sequences == sorted(sequences)
        assert len(sequences) - len(set(sequences)) <= KILLS


async def _refer(stories: list[Story], conductor: Conductor) -> None:
    for story in stories:
        await story.turn()
    await conductor.settle()


async def _published(stack: Stack) -> dict[tuple[str, int], Any]:
    """What is on the topic: by subject and sequence."""
    found = {}
    async with consuming(stack, [TOPIC]) as batches:
        async for records in batches:
            for record in records:
                about = {name: value.decode() for name, value in record.headers}
                found[about["ce_subject"], int(about["ce_sequence"])] = json.loads(record.value or b"")
    return found


async def _register(stack: Stack, subscriber: Subscriber) -> str:
    told = await _post(stack, "/endpoints", {"url": subscriber.url, "event_types": TYPES})
    subscriber.secret = told["secret"]
    return str(told["id"])


async def _post(stack: Stack, path: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {
        "Authorization": f"Bearer {stack.token('subscriber', subject='partner')}",
        "Idempotency-Key": str(uuid4()),
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(stack.url("webhooks") + path, json=body, headers=headers)
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json()
    return told

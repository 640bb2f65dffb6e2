"""All six services in one world, playing the demo's stories: the same people, payer and gateway, a seed's faults."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import datetime, timedelta
from functools import cache

import httpx

from deploy.demo.api import Api, Refusal
from deploy.demo.cases import DEFAULT_FOLDER, Case, load
from deploy.demo.player import LONGEST, Story
from deploy.demo.world import furnish
from deploy.simulators import gateway, payer
from services.directory import service as directory
from services.intake import service as intake
from services.notifications import service as notifications
from services.prior_authorization import service as prior_authorization
from services.referrals import service as referrals
from services.scheduling import service as scheduling
from shared.kit.auth import Role
from tests.simulation.care_checks import check_care
from tests.simulation.invariants import check_sequences, check_timers_not_early, digest
from tests.simulation.world import Actor, Crash, Declared, Faults, World, settings_for

PAYER = "http://payer.test"
GATEWAY = "http://gateway.test"
BY_MAIL = "02-approved-at-once"
"""Its messages go by SMTP, which is a real socket's business and played on the embedded stack."""

PATIENTS = (1, 2, 1, 1, 2)
"""How many patients a world has, by its seed."""

NEEDS_ANSWERS = frozenset({"12-cancelled-by-text"})
"""Stories that cannot go on where a gateway without deduplication loses its answer: nobody knows what was sent."""


@cache
def declared(deduplicate: bool) -> tuple[Declared, ...]:
    """The six services as a world runs them."""
    outside = {"payer_url": PAYER}
    channels = ["sms", "voice", "letter"] if deduplicate else []
    told = {
        "gateway_url": GATEWAY,
        "public_url": "http://notifications.test",
        "deduplicating_channels": channels,
        "sends_per_second": 0,
    }
    return (
        Declared("intake", settings_for(intake.Settings, **outside), intake.build),
        Declared("referrals", settings_for(referrals.Settings), referrals.build),
        Declared(
            "prior_authorization",
            settings_for(prior_authorization.Settings, **outside),
            prior_authorization.build,
        ),
        Declared("scheduling", settings_for(scheduling.Settings), scheduling.build),
        Declared("notifications", settings_for(notifications.Settings, **told), notifications.build),
        Declared("directory", settings_for(directory.Settings), directory.build),
    )


@cache
def stories_of(deduplicate: bool) -> tuple[Case, ...]:
    """The demo's cases, as far as a world without sockets can play them."""
    cases = []
    for case in load(DEFAULT_FOLDER):
        scenario = case.scenario
        if case.name == BY_MAIL:
            continue
        if not deduplicate and scenario is not None:
            if case.name in NEEDS_ANSWERS:
                continue
            case = dataclasses.replace(case, scenario=scenario.model_copy(update={"messages": {}}))
        cases.append(case)
    return tuple(cases)


class Service(httpx.AsyncBaseTransport):
    """A service's address: whichever of its processes lives answers."""

    def __init__(self, world: World, service: str) -> None:
        self._world = world
        self._service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, or break the connection where the process dies meanwhile."""
        live = self._world.live(self._service)
        if not live:
            raise httpx.ConnectError("nobody is there", request=request)
        process = self._world.random.choice(live)
        try:
            return await httpx.ASGITransport(app=process.chassis.app).handle_async_request(request)
        except Crash:
            raise httpx.ReadError("the process died", request=request) from None


class _Hosts(httpx.AsyncBaseTransport):
    """What somebody outside sees: every host of the world; answers get lost on the way as well."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, refuse, or lose the answer."""
        world = self._world
        chance = world.random.random()
        if not world.calm and chance < world.faults.http_refused / 3:
            raise httpx.ConnectError("refused", request=request)
        response = await world.hosts[request.url.host].handle_async_request(request)
        if not world.calm and chance > 1 - world.faults.http_lost / 3:
            raise httpx.ReadTimeout("lost", request=request)
        return response


class Patient(Api):
    """The public APIs for somebody who asks again, under the same key, until there is an answer."""

    async def pause(self, seconds: float) -> None:
        """Let the world go on: no time passes by itself here."""
        for _ in range(20):
            await asyncio.sleep(0)


async def _late(seconds: float) -> None:
    raise httpx.ReadTimeout("too slow")


class Care:
    """One world of patients."""

    def __init__(self, seed: int, *, faults: Faults | None = None, cases: int | None = None) -> None:
        self.deduplicate = bool(seed % 4)
        self.world = World(seed, declared(self.deduplicate), faults=faults)
        world = self.world
        every = stories_of(self.deduplicate)
        chosen = world.random.sample(every, min(cases or PATIENTS[seed % len(PATIENTS)], len(every)))
        self.http = httpx.AsyncClient(transport=_Hosts(world))

        def token() -> str:
            return world.issuer.token(Role.SERVICE, subject="payer-simulator")

        self.payer = payer.Payer(
            now=world.clock.now,
            http=self.http,
            notify_url="http://prior_authorization.test/payers/{payer_id}/notifications",
            token=token,
            sleep=_late,
            strict=False,
        )
        self.gateway = gateway.Gateway(
            now=world.clock.now,
            http=self.http,
            inbound_url="http://notifications.test/inbound/{channel}",
            token=token,
            deduplicate=self.deduplicate,
            sleep=_late,
        )
        for name in world.declared:
            world.hosts[f"{name}.test"] = Service(world, name)
        world.hosts["payer.test"] = httpx.ASGITransport(app=self.payer.app)
        world.hosts["gateway.test"] = httpx.ASGITransport(app=self.gateway.app)
        urls = {name: f"http://{name}.test" for name in world.declared}
        self.api = Patient(
            {**urls, "payer": PAYER, "gateway": GATEWAY},
            lambda role: world.issuer.token(Role(role)),
            self.http,
            patience=1e9,
        )
        self.stories = [Story(case, self.api, f"run-{seed}", world.clock.now) for case in chosen]
        self._turns: dict[str, asyncio.Task[bool]] = {}
        self._acted = True

    async def play(self) -> None:
        """Play it to its end, and look whether everything holds. Every failure names its seed."""
        try:
            await self._play()
        except BaseException as error:
            error.add_note(f"seed {self.world.seed}: {', '.join(story.case.name for story in self.stories)}")
            raise
        self.world.forget()
        self.stories.clear()

    async def _play(self) -> None:
        world = self.world
        await world.start()
        await self._while(asyncio.ensure_future(furnish(self.api, world.clock.now(), f"run-{world.seed}")))
        until = world.clock.now() + LONGEST
        world.others = [Actor(None, "outside", "outside", self._outside)]
        idle = 0
        while True:
            self._acted = False
            for story in self.stories:
                if not story.done:
                    await self._while(asyncio.ensure_future(self._turn(story)))
            await self._rest()
            if all(story.done for story in self.stories):
                break
            if self._acted:
                idle = 0
                continue
            idle += 1
            if idle < 2:
                continue  # Something may have come to rest only behind their turn: they look once more.
            idle = 0
            if not self._advance(until):
                for story in self.stories:
                    if not story.done:
                        story.give_up("nothing more happens")
                break
        world.calm = True
        await self._rest()
        await self._hear_them_out()
        self._judge()
        check_sequences(world)
        check_timers_not_early(world)
        await check_care(world, self.payer, self.gateway, deduplicate=self.deduplicate)
        before = digest(world)
        world.broker.rewind()
        await self._rest()
        after = digest(world)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        assert not changed, f"replaying every topic changed {changed}"

    def _judge(self) -> None:
        for story in self.stories:
            assert story.lines, f"{story.case.name}: nothing was referred ({story.flaws})"
            for line in story.lines:
                assert line.as_expected, f"{line.case}: {line.title}: {line.state} {line.reason}: {line.faults}"

    async def _turn(self, story: Story) -> bool:
        try:
            acted = await story.turn()
        except Refusal as refusal:
            story.give_up(f"refused: {refusal}")
            return False
        self._acted = self._acted or acted
        return acted

    async def _while(self, task: asyncio.Task[object]) -> None:
        """Let the world go on until somebody outside is through with what they ask for."""
        while not task.done():
            await self.world.step()
            await asyncio.sleep(0)
        await task

    async def _outside(self) -> int:
        """The payer and the gateway do what is due."""
        return await self.payer.tick() + await self.gateway.tick()

    async def _rest(self) -> None:
        """Everything that can be done at this time is done."""
        for _ in range(1000):
            await self.world.settle()
            due = [at for at in (self.payer.next_due(), self.gateway.next_due()) if at is not None]
            if not any(at <= self.world.clock.now() for at in due):
                return
            await self._while(asyncio.ensure_future(self._outside()))

    async def _hear_them_out(self) -> None:
        """Whatever payer, gateway or a timer here would say in the next minutes is said before anything is looked at.

        Coming to rest takes seconds, in which it would else come between one look and the next.
        """
        end = self.world.clock.now() + timedelta(minutes=5)
        while True:
            due = [self.payer.next_due(), self.gateway.next_due(), self.world.next_due()]
            soon = [at for at in due if at is not None and at <= end]
            if not soon:
                return
            self.world.clock.advance_to(max(min(soon), self.world.clock.now()))
            await self._rest()

    def _advance(self, until: datetime) -> bool:
        """Move time on to what is due next, here, outside, or for a person who waits."""
        wanted = [story.wish for story in self.stories if story.wish is not None and not story.done]
        due = [self.world.next_due(), self.payer.next_due(), self.gateway.next_due(), *wanted]
        times = [at for at in due if at is not None]
        if not times or min(times) > until:
            return False
        self.world.clock.advance_to(min(times) + timedelta(seconds=self.world.random.choice((0, 1, 30))))
        return True

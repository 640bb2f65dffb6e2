"""A small story on the toy service: letters arrive in boxes, people put more in, each box is sent once."""

from __future__ import annotations

from collections import Counter

import httpx

from shared.kit.auth import Role
from shared.kit.bus.envelope import message_of
from shared.kit.decisions import Facts
from shared.kit.document import Attempt, derived_id
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.repository import Entry
from tests.simulation.invariants import check_sequences, check_timers_not_early, digest
from tests.simulation.world import Actor, Crash, Declared, Faults, World, settings_for
from tests.unit.kit.toy import Box, LetterArrived, Stamp, build

LETTERS = 12
BOXES = 4
PEOPLE = 6


class Letters:
    """One play. ``idempotent`` says whether the post office deduplicates."""

    def __init__(self, seed: int, *, faults: Faults | None = None, idempotent: bool | None = None) -> None:
        self.idempotent = bool(seed % 2) if idempotent is None else idempotent
        self.posted: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        settings = settings_for(KitSettings)
        self.world = World(seed, [Declared("toy", settings, self._build)], faults=faults)
        self.asked = 0
        self.refused = 0

    def _build(self, settings: KitSettings, http: httpx.AsyncClient) -> Service:
        async def send(box: Box, attempt: Attempt, facts: Facts) -> object:
            answer = await http.post("http://post.test/send", json={"box": box.id}, headers={"key": attempt.id})
            return str(answer.json()["receipt"])

        return build(settings, http, send=send, idempotent=self.idempotent)

    async def play(self) -> None:
        """Play it to its end, and look whether everything holds."""
        try:
            await self._play()
        except BaseException as error:
            error.add_note(f"seed {self.world.seed}")
            raise

    async def _play(self) -> None:
        world = self.world
        world.hosts["post.test"] = httpx.MockTransport(self._post_office)
        await world.start()
        for number in range(LETTERS):
            for part in range(2):
                event = LetterArrived(letter_id=f"{number}.{part}", boxes=(f"box-{number % BOXES}", f"box-{part}"))
                entry = Entry(
                    part + 1,
                    derived_id(str(number), str(part)),
                    event.type,
                    event.topic,
                    world.clock.now(),
                    event.model_dump_json(),
                    None,
                )
                world.broker.append(message_of("elsewhere", f"letter-{number}", entry))
        world.others.append(Actor(None, "person", "person", self._person))
        while self.asked < PEOPLE:
            await world.step()
            if not world.actors():
                world.clock.pass_(0.5)
        world.others.clear()
        await world.settle()
        while (due := world.next_due()) is not None:  # Calls that were backed off; there are no other timers by now.
            world.clock.pass_(max(0.0, (due - world.clock.now()).total_seconds()))
            await world.settle()
        await self._check()
        before = digest(world)
        world.broker.rewind()
        await world.settle()
        assert digest(world) == before, "replaying every topic changed something"

    def _post_office(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["key"]
        self.tried[key] += 1
        if not self.idempotent or not self.posted[key]:
            self.posted[key] += 1
        return httpx.Response(200, json={"receipt": key})

    async def _person(self) -> int:
        """Open a box and put a letter in, under a key of the request's own, again until there is an answer."""
        number = self.asked
        processes = self.world.live("toy")
        if not processes or number >= PEOPLE:
            return 0
        process = self.world.random.choice(processes)
        token = self.world.issuer.token(Role.COORDINATOR)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=process.chassis.app),
            base_url="http://toy.test",
            headers={"Authorization": f"Bearer {token}"},
        )
        try:
            opened = await client.post(
                "/boxes", json={"owner": f"o{number}"}, headers={"Idempotency-Key": f"open-{number}"}
            )
            if opened.status_code != 201:
                return 0
            letter = derived_id("put", str(number))
            put = await client.post(
                f"/boxes/{opened.json()['id']}/letters",
                json={"letter": letter},
                headers={"Idempotency-Key": f"put-{number}"},
            )
        except Crash:
            return 0
        if put.status_code == 200:
            self.asked += 1
        return 1

    async def _check(self) -> None:
        world = self.world
        world.calm = True
        await world.revive()
        repository = world.live("toy")[0].chassis.repository
        boxes = {box.id: box for box in await repository.find(Box, {})}
        for number in range(BOXES):
            expected = Counter(f"{n}.{p}" for n in range(LETTERS) for p in range(2) if number in {n % BOXES, p})
            assert Counter(boxes[f"box-{number}"].letters) == expected, f"box-{number}"
        opened = [box for box in boxes.values() if box.owner]
        assert len(opened) == PEOPLE, sorted(box.owner for box in opened)
        for box in opened:
            assert len(box.letters) == 1
            assert len(box.sent) + box.unknown == 1, (
                f"each box is sent once, or shown as unknown: {box.sent} {box.unknown} {box.timers} {box.attempted}"
            )
            assert box.escalations == 0
        stamps = {stamp.id: stamp.total for stamp in await repository.find(Stamp, {})}
        for box in boxes.values():
            if box.letters:
                assert stamps[derived_id("stamp", box.id)] == len(box.letters)
        assert all(count <= 1 for count in self.posted.values()), "the post office took a box twice"
        if self.idempotent:
            assert sum(box.unknown for box in boxes.values()) == 0
        check_sequences(world)
        check_timers_not_early(world)

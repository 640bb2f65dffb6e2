"""A small story on the toy service: letters arrive in boxes, people put more in, each box is sent once.

One letter is poison: it parks its key with what follows it, until an operator has the key replayed.
"""

from __future__ import annotations

import json
from collections import Counter

import httpx

from shared.kit.auth import Role
from shared.kit.bus.envelope import message_of
from shared.kit.decisions import Facts
from shared.kit.document import Attempt, derived_id
from shared.kit.parking import Parked
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.repository import Entry
from tests.simulation.invariants import check_sequences, check_timers_not_early, digest
from tests.simulation.world import Actor, Crash, Declared, Faults, World, settings_for
from tests.unit.kit.toy import CURED, POISON, Box, LetterArrived, Stamp, build

LETTERS = 12
BOXES = 4
PEOPLE = 6


class Letters:
    """One play. The post office deduplicates for every second seed."""

    def __init__(self, seed: int, *, faults: Faults | None = None, patience: int = 2_000) -> None:
        self.idempotent = bool(seed % 2)
        self.posted: Counter[str] = Counter()
        self.known: set[str] = set()
        settings = settings_for(KitSettings)
        self.world = World(seed, [Declared("toy", settings, self._build)], faults=faults)
        self.world.patience = patience
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
                self._arrives(f"letter-{number}", part + 1, f"{number}.{part}", f"box-{number % BOXES}", f"box-{part}")
        bad = f"bad-{world.seed}"
        CURED.discard(f"{bad}.0")  # An earlier play of this seed may have left it.
        for part in range(3):
            self._arrives("letter-bad", part + 1, f"{bad}.{part}", "box-bad", text=POISON if part == 0 else "")
        world.others.append(Actor(None, "api", "person", self._person))
        for _ in range(4_000):
            if self.asked >= PEOPLE:
                break
            await world.step()
            if not world.actors():
                world.clock.pass_(0.5)
        else:
            raise AssertionError("somebody never gets an answer")
        world.others.clear()
        await world.settle()
        while (due := world.next_due()) is not None:  # Calls that were backed off; there are no other timers by now.
            world.clock.pass_(max(0.0, (due - world.clock.now()).total_seconds()))
            await world.settle()
        world.calm = True
        await world.revive()
        await self._replay_the_poison(bad)
        await self._check()
        before = digest(world)
        world.broker.rewind()
        await world.settle()
        assert digest(world) == before, "replaying every topic changed something"

    def _arrives(self, key: str, sequence: int, letter: str, *boxes: str, text: str = "") -> None:
        event = LetterArrived(letter_id=letter, boxes=boxes, text=text)
        data = event.model_dump_json()
        now = self.world.clock.now()
        entry = Entry(sequence, derived_id(key, str(sequence)), event.type, event.topic, now, data, None)
        self.world.broker.append(message_of("elsewhere", key, entry))

    async def _replay_the_poison(self, bad: str) -> None:
        """What followed the poison waited behind it, in order; once the code is fixed, all of it is applied."""
        repository = self.world.live("toy")[0].chassis.repository
        (parked,) = await repository.find(Parked, {})
        assert len(parked.entries) == 3, [entry.place for entry in parked.entries]
        assert not await repository.find(Box, {"_id": "box-bad"})
        CURED.add(f"{bad}.0")
        await self.world.live("toy")[0].chassis.parking.replay(parked.id)
        await self.world.settle()
        (box,) = await repository.find(Box, {"_id": "box-bad"})
        assert box.letters == [f"{bad}.{part}" for part in range(3)], box.letters

    def _post_office(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["key"]
        if not self.idempotent or key not in self.known:
            self.known.add(key)
            self.posted[json.loads(request.content)["box"]] += 1
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
        unknown = sum(box.unknown for box in boxes.values())
        if self.idempotent:
            assert unknown == 0
        assert unknown <= world.unanswered, f"{unknown} boxes are unknown, and {world.unanswered} answers were lost"
        check_sequences(world)
        check_timers_not_early(world)

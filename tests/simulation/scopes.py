"""The small scopes that are searched to their end: outbox, parking and lease, each with all that may go wrong with it.

Each scene makes a stage with a few processes of the toy service and what each of them is about to do, says what must
hold after every step (``always``), and puts in order what crashes left, as a process that starts later would
(``finish``), to look at the end.
"""

from __future__ import annotations

from collections import Counter

from shared.kit.bus.envelope import message_of
from shared.kit.commands import Exists, Request
from shared.kit.decisions import Facts
from shared.kit.document import Attempt, derived_id
from shared.kit.duework import DueWorker
from shared.kit.parking import WAITS, Parked, ParkedState, draining, parked_id
from shared.kit.store.repository import Entry, hold
from tests.checks.events import Published, check_nothing_is_overdue, check_sequences
from tests.simulation.exhaustive import LEASE, MARGIN, OVER, SERVICE, TOO_LATE, Process, Stage
from tests.unit.kit.toy import (
    CURED,
    POISON,
    REACTIONS,
    Box,
    LetterArrived,
    LetterCounted,
    OpenBox,
    PutLetter,
    jobs,
    open_box,
    put_letter,
)

BOX = derived_id("box", "little")
KEY = "letter"
GROUP = f"{SERVICE}.box"
PARKED = parked_id(GROUP, KEY)
LATER = 60.0
"""Seconds after which every lease has ended and every backoff but an hour's is over."""


def arrives(stage: Stage, *letters: str, poison: str = "") -> None:
    """These letters are on somebody else's topic, under one key."""
    for sequence, letter in enumerate(letters, start=1):
        event = LetterArrived(letter_id=letter, boxes=(BOX,), text=POISON if letter == poison else "")
        id = derived_id(KEY, str(sequence))
        entry = Entry(sequence, id, event.type, event.topic, stage.clock.now(), event.model_dump_json(), None)
        stage.broker.append(message_of("elsewhere", KEY, entry))


async def opened(process: Process) -> None:
    """A box is there, and its event is out."""
    request = Request(caller="clerk", key="open", digest="open")
    command = (BOX, OpenBox(owner="somebody"))
    await process.commands.run(Box, BOX, command, open_box, request, exists=Exists.NO, status=201)
    await process.publisher.flush()


async def ask(process: Process, letter: str) -> None:
    """A request to put a letter in the box, answered."""
    request = Request(caller="clerk", key=None, digest=letter)  # a key would be claimed beside
    command = PutLetter(letter=derived_id("letter", letter))
    await process.commands.run(Box, BOX, command, put_letter, request, exists=Exists.YES, status=200)
    process.stage.tell(f"answered {command.letter}")


async def put(process: Process, letter: str) -> None:
    """The same, and then what it recorded goes out."""
    await ask(process, letter)
    await process.publisher.flush()


async def read(process: Process, times: int) -> None:
    """Take in one record at a time; then what was recorded goes out."""
    for number in range(times):
        await process.bus.step(GROUP, max_records=1)
        await process.publisher.flush()
        process.rests(number)


async def left(process: Process) -> None:
    """The process reads no more."""
    process.bus.vanish()


async def taken_over(process: Process, worker: DueWorker) -> None:
    """The slots of whoever had them, once their leases are over."""
    await process.beat(worker)
    process.stage.clock.pass_(LATER)
    await process.beat(worker)


def letters_of(stage: Stage) -> list[str]:
    """What lies in the box now, in its order; nothing where there is none."""
    boxes = stage.collections.get(Box.collection)
    return list(boxes.get(BOX)["letters"]) if boxes is not None and BOX in boxes.texts else []


# -- the outbox ---------------------------------------------------------------------------------------------


def two_commands(stage: Stage) -> None:
    """Two requests change one document, each in a process of its own, while a third process sweeps."""
    stage.failures = 1
    home = stage.process("home")
    stage.run(home, opened(home))
    for name in ("one", "two"):
        process = stage.process(name)
        stage.play(process, put(process, f"of-{name}"))
    _swept(stage, certain=())


def a_command_and_a_reaction(stage: Stage) -> None:
    """A request and an event change one document, while a third process sweeps."""
    stage.failures = 1
    home = stage.process("home")
    stage.run(home, opened(home))
    arrives(stage, "arrived")
    one, two = stage.process("one"), stage.process("two")
    stage.play(one, put(one, "of-one"))
    _reading(stage, two, 1)
    _swept(stage, certain=("arrived",))


def two_reactions_create(stage: Stage) -> None:
    """One event reaches two processes, one of which is no longer in the group; each creates the document."""
    stage.failures = 1
    arrives(stage, "first", "second")
    one, two = stage.process("one"), stage.process("two")
    _reading(stage, one, 1)
    stage.play(two, _thrown_out(one, two, 2))
    two.reactor(REACTIONS[0])
    _swept(stage, certain=("first", "second"))


def one_publisher_for_two(stage: Stage) -> None:
    """Two requests in one process, whose publisher runs beside them."""
    home = stage.process("home")
    stage.run(home, opened(home))
    api = stage.process("api")

    async def publish() -> None:
        while len(stage.told) < 2 or api.publisher.waiting:
            await api.idle(lambda: bool(api.publisher.waiting) or len(api.live()) == 1)
            await api.publisher.flush()

    stage.play(api, ask(api, "of-one"))
    stage.play(api, ask(api, "of-two"))
    stage.play(api, publish())
    _recovered(stage, certain=())


def _reading(stage: Stage, process: Process, times: int) -> None:
    process.reactor(REACTIONS[0])
    stage.run(process, process.bus.start())
    stage.play(process, read(process, times))


async def _thrown_out(old: Process, new: Process, times: int) -> None:
    """The old reader's session is over, whatever it is at; a new one has its partitions."""
    await new.gate("group.join")
    old.bus.vanish()
    await new.bus.start()
    await read(new, times)


def _swept(stage: Stage, certain: tuple[str, ...]) -> None:
    """With a process that sweeps while the others are at work."""
    sweeper = stage.process("sweeper")
    worker = sweeper.worker(Box, None)
    stage.run(sweeper, sweeper.beat(worker))

    async def sweep() -> None:
        await worker.sweep()
        await sweeper.publisher.flush()

    stage.play(sweeper, sweep())
    _recovered(stage, certain)


def _recovered(stage: Stage, certain: tuple[str, ...]) -> None:
    """At the end a process that starts later sweeps, and reads what was not read."""

    async def recover(after: Process) -> None:
        worker = after.worker(Box, None)
        await taken_over(after, worker)
        after.reactor(REACTIONS[0])
        await after.bus.start()
        while await after.bus.step(GROUP):
            pass
        await worker.sweep()
        await after.publisher.flush()

    def finish() -> None:
        stage.failures = 0
        after = stage.process("after")
        stage.run(after, recover(after))
        check_outbox(stage, certain)

    stage.finish = finish


def check_outbox(stage: Stage, certain: tuple[str, ...]) -> None:
    """First occurrences are 1..n in order, outboxes are empty, and no update is lost or made twice."""
    topic = stage.broker.topics.get(LetterCounted.topic, [])
    records = [record for log in topic for record in log]
    published = [Published.read(record.topic, record.headers) for record in records]
    stored = stage.stored()
    check_sequences(SERVICE, stored, published)
    letters = letters_of(stage)
    once = Counter(letters)
    assert set(once.values()) <= {1}, f"a letter lies there twice: {letters}"
    answered = {line.removeprefix("answered ") for line in stage.told}
    assert answered | set(certain) <= set(letters), f"{answered} were answered, {certain} arrived; there are {letters}"
    own = [record for record in records if dict(record.headers)["ce_type"] == LetterCounted.type.encode()]
    counts = list(dict.fromkeys(LetterCounted.model_validate_json(record.value or b"").count for record in own))
    assert counts == list(range(1, len(letters) + 1)), f"{counts} were counted of {letters}"


# -- parking ------------------------------------------------------------------------------------------------

EVENTS = ("bad", "next", "last")


def replayed_while_more_arrives(stage: Stage) -> None:
    """The poison waits, its cause is mended and its key marked; while it is drained, the events behind it arrive."""
    _parked(stage, *EVENTS)
    CURED.add("bad")
    reader = stage.process("reader")
    _reading(stage, reader, 2)
    _draining(stage, marked=True)
    _in_order(stage, EVENTS)


def replayed_by_two_readers(stage: Stage) -> None:
    """As before, and in mid-batch the reader is thrown out of its group: both hold the same events."""
    _parked(stage, *EVENTS[:2])
    CURED.add("bad")
    old, new = stage.process("old"), stage.process("new")
    _reading(stage, old, 1)
    new.reactor(REACTIONS[0])
    stage.play(new, _thrown_out(old, new, 1))
    _draining(stage, marked=True)
    _in_order(stage, EVENTS[:2])


def replayed_in_vain(stage: Stage) -> None:
    """The key is marked though the poison is what it was: nothing behind it may be applied."""
    _parked(stage, *EVENTS)
    reader = stage.process("reader")
    _reading(stage, reader, 2)
    _draining(stage, marked=True)
    _asked(stage, "again")
    _in_order(stage, EVENTS)


def discarded_while_more_arrives(stage: Stage) -> None:
    """An operator gives the poison up while it is replayed in vain and the events behind it arrive."""
    _parked(stage, *EVENTS[:2])
    reader = stage.process("reader")
    _reading(stage, reader, 1)
    _draining(stage, marked=True)
    _asked(stage, "discard")
    _in_order(stage, EVENTS[:2])


def parked_by_two_readers(stage: Stage) -> None:
    """Two readers, one of them thrown out of its group, come upon the poison and what follows it."""
    CURED.clear()
    arrives(stage, *EVENTS, poison="bad")
    old, new = stage.process("old"), stage.process("new")
    _reading(stage, old, 2)
    new.reactor(REACTIONS[0])
    stage.play(new, _thrown_out(old, new, 3))
    _in_order(stage, EVENTS)


def _parked(stage: Stage, *events: str) -> None:
    """The first event was poison and waits; more of its key are on the topic."""
    CURED.clear()
    arrives(stage, *events, poison="bad")
    home = stage.process("home")
    home.reactor(REACTIONS[0])
    stage.run(home, home.bus.start())
    stage.run(home, home.bus.step(GROUP, max_records=1))
    stage.run(home, left(home))


def _drainer(process: Process) -> DueWorker:
    reactor = process.reactor(REACTIONS[0])

    async def replay(group: str, record: object) -> str | None:
        return await reactor.replay(record)  # type: ignore[arg-type]

    async def rewake(collection: str, id: str, timer: str) -> None:
        raise AssertionError("no timer is parked here")

    return process.worker(Parked, draining(replay, rewake))


def _draining(stage: Stage, *, marked: bool) -> None:
    """A process that drains what is marked, for as long as there is something due."""
    drainer = stage.process("drainer")
    worker = _drainer(drainer)
    stage.run(drainer, drainer.beat(worker))
    if marked:
        stage.run(drainer, drainer.parking.replay(PARKED))

    async def drain() -> None:
        while await worker.work():
            await drainer.idle(lambda: not worker._calling)
            drainer.rests("drain")

    stage.play(drainer, drain())


def _asked(stage: Stage, what: str) -> None:
    """An operator's command runs in a process of its own."""
    operator = stage.process("operator")

    async def command() -> None:
        if what == "discard":
            await operator.parking.discard(PARKED, "operator")
            stage.tell("discarded")
        else:
            await operator.parking.replay(PARKED)

    stage.play(operator, command())


def _in_order(stage: Stage, events: tuple[str, ...]) -> None:
    """At every moment the box holds the first few of ``events``, at the end all, but for what an operator gave up."""

    def parked() -> Parked | None:
        stored = stage.collections.get(Parked.collection)
        there = stored is not None and PARKED in stored.texts
        return hold(Parked, PARKED, stored.get(PARKED)).document if stored is not None and there else None

    def kept() -> list[str]:
        waiting = parked()
        return list(events[1:] if waiting is not None and waiting.discarded else events)

    def always() -> None:
        letters = letters_of(stage)
        if letters != kept()[: len(letters)]:
            stage.blame(f"{letters} were applied, of {events}")

    def finish() -> None:
        after = stage.process("after")
        worker = _drainer(after)
        stage.run(after, _read_all(after, worker))
        _work_off(stage, after, worker)
        waiting = parked()
        if "bad" not in CURED and kept() == list(events):
            assert waiting is not None
            assert waiting.state is ParkedState.PARKED, waiting.state
            assert [entry.record().offset for entry in waiting.entries] == list(range(len(events)))
            assert [entry.reason == WAITS for entry in waiting.entries] == [n > 0 for n in range(len(events))]
            assert letters_of(stage) == []
            CURED.add("bad")
            stage.run(after, after.parking.replay(PARKED))
            _work_off(stage, after, worker)
            waiting = parked()
        assert letters_of(stage) == kept(), f"{letters_of(stage)} were applied, of {events}"
        assert waiting is not None
        assert (waiting.state, waiting.entries) == (ParkedState.CLEAR, []), "something waits that nothing holds back"

    stage.always = always
    stage.finish = finish


async def _read_all(after: Process, worker: DueWorker) -> None:
    await after.bus.start()
    await taken_over(after, worker)
    while await after.bus.step(GROUP):
        pass


def _work_off(stage: Stage, process: Process, worker: DueWorker) -> None:
    """Everything that is due, or becomes due by that, is done."""
    for _ in range(50):
        stage.clock.pass_(LATER)
        stage.run(process, process.beat(worker))
        if not stage.run(process, worker.work()) and not worker.busy:
            return
    raise AssertionError("there is always something due")


# -- leases -------------------------------------------------------------------------------------------------


def a_lease_runs_out(stage: Stage) -> None:
    """A worker calls outside and renews its lease meanwhile; another one takes over as soon as the lease is over."""
    _sending(stage, TOO_LATE, OVER)
    one, two = stage.process("one"), stage.process("two")
    first, second = _sender(one), _sender(two)
    stage.run(one, one.beat(first))
    stage.run(two, two.beat(second))
    stage.play(one, _worked(one, first, "work", "beat", "work"))
    stage.play(two, _worked(two, second, "beat", "work"))


def a_worker_joins(stage: Stage) -> None:
    """A second worker joins; the first one hands half of the slots over while it has a call in flight."""
    _sending(stage, TOO_LATE)
    one, two = stage.process("one"), stage.process("two")
    first, second = _sender(one), _sender(two)
    stage.run(one, one.beat(first))
    stage.play(one, _worked(one, first, "work", "beat", "beat"))
    stage.play(two, _worked(two, second, "beat", "beat", "work"))


def two_take_over(stage: Stage) -> None:
    """A worker died between the intention and its call; two others see its lease end at the same time."""
    _sending(stage, TOO_LATE)
    gone, one, two = stage.process("gone"), stage.process("one"), stage.process("two")
    last, first, second = _sender(gone), _sender(one), _sender(two)
    stage.run(gone, gone.beat(last))
    stage.run(one, one.beat(first))
    stage.run(two, two.beat(second))
    stage.clock.pass_(LEASE + MARGIN)
    stage.play(one, _worked(one, first, "beat", "beat", "work"))
    stage.play(two, _worked(two, second, "beat", "beat", "work"))


def the_first_two(stage: Stage) -> None:
    """Two workers begin where there never was one."""
    _sending(stage, TOO_LATE)
    for name in ("one", "two"):
        process = stage.process(name)
        stage.play(process, _worked(process, _sender(process), "beat", "beat", "work"))


def _sending(stage: Stage, *ticks: float) -> None:
    """A box is to be sent, once: the other side does not deduplicate."""
    stage.ticks = ticks
    home = stage.process("home")
    stage.run(home, opened(home))
    stage.run(home, put(home, "of-home"))
    stage.told.clear()

    def finish() -> None:
        stage.ticks = ()
        after = stage.process("after")
        worker = _sender(after)
        stage.run(after, taken_over(after, worker))
        _work_off(stage, after, worker)
        check_sent(stage)

    stage.finish = finish


def _sender(process: Process) -> DueWorker:
    async def send(box: Box, attempt: Attempt, facts: Facts) -> object:
        stage = process.stage
        if stage.clock.monotonic() >= process.until - MARGIN:
            stage.blame(f"{process.name} begins a call at {stage.clock.monotonic()}, its lease ends at {process.until}")
        stage.tell(f"posted {attempt.id}")
        await process.gate("outside")
        return attempt.id

    return process.worker(Box, jobs(send, idempotent=False)[0])


async def _worked(process: Process, worker: DueWorker, *steps: str) -> None:
    """``beat`` renews, ``work`` is one pass; at the end the calls in flight are waited for, and settled."""
    for number, step in enumerate(steps):
        if step == "beat":
            await process.beat(worker)
        else:
            await worker.work()
        process.rests(number)
    await process.idle(lambda: not worker._calling)
    await worker.settle()


def check_sent(stage: Stage) -> None:
    """The box was sent at most once, and shows truly whether that is known."""
    box = hold(Box, BOX, stage.collections[Box.collection].get(BOX)).document
    assert box is not None
    assert len(stage.told) <= 1, f"sent more than once: {stage.told}"
    assert len(box.sent) + box.unknown == 1, f"sent {box.sent}, unknown {box.unknown}"
    assert [f"posted {id}" for id in box.sent] == stage.told or box.unknown
    check_nothing_is_overdue(SERVICE, stage.stored(), stage.clock.now())


OUTBOX = (two_commands, a_command_and_a_reaction, two_reactions_create, one_publisher_for_two)
PARKING = (
    replayed_while_more_arrives,
    replayed_by_two_readers,
    replayed_in_vain,
    discarded_while_more_arrives,
    parked_by_two_readers,
)
LEASES = (a_lease_runs_out, a_worker_joins, two_take_over, the_first_two)

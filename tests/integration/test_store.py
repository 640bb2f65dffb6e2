"""The real store, by both drivers: the suite every store passes, and what only a server can lose."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from shared.kit.document import SLOTS
from shared.kit.store import mongodb
from shared.kit.store.mongodb import Driver, MongoStore
from shared.kit.store.port import EPOCH, Conditions, Outcome, Store, StoreUnavailable, Unstorable, Write
from shared.kit.testing.store_suite import AT, INDEXES, StoreSuite, event, fresh
from tests.integration.conftest import StoreServer

DRIVERS: tuple[Driver, ...] = ("pymongo", "motor")


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


class TestMongoStore(StoreSuite):
    @pytest.fixture
    async def store(self, mongodb_uri: str, driver: Driver) -> AsyncIterator[Store]:
        store = MongoStore(mongodb_uri, f"suite-{uuid4().hex}", driver=driver)
        yield store
        await store.close()


# -- plans ----------------------------------------------------------------------------------------------------


def stages(plan: Mapping[str, Any]) -> Iterator[str]:
    """The stages of a plan, however they are nested."""
    if "stage" in plan:
        yield str(plan["stage"])
    for value in plan.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping):
                yield from stages(inner)


QUERIES: Mapping[str, tuple[Conditions, str]] = {
    "the look over all that is due": ({"due": {"$gte": EPOCH, "$lte": AT}}, "due"),
    "what is due in one slot": ({"slot": 7, "due": {"$gte": EPOCH, "$lte": AT}}, "due"),
    "what is due in one slot and calls one": (
        {"slot": 7, "owner": "owner-1", "due": {"$gte": EPOCH, "$lte": AT}},
        "due",
    ),
    "what became due since": ({"due": {"$gte": AT - timedelta(seconds=2), "$lte": AT}}, "due"),
    "the first that is due": ({"due": {"$gte": EPOCH}}, "due"),
    "the sweep of what is not sent": ({"unsent": {"$gte": EPOCH, "$lte": AT}}, "unsent"),
    "a route by a field": ({"owner": {"$in": ["owner-1", "owner-2"]}}, "_id"),
    "facts by a field": ({"owner": "owner-1"}, "_id"),
    "a page by a field": ({"owner": "owner-1", "_id": {"$gt": "0001"}}, "_id"),
    "documents by their ids": ({"_id": {"$in": ["0001", "0002"]}}, "_id"),
}


@pytest.fixture(scope="module")
def planned() -> str:
    return f"plans-{uuid4().hex}"


@pytest.mark.parametrize("query", list(QUERIES))
async def test_every_query_of_the_kit_goes_by_an_index(mongodb_uri: str, planned: str, query: str) -> None:
    store = MongoStore(mongodb_uri, planned)
    if not await store.count("thing", {}):
        await store.ensure("thing", INDEXES)
        writes = [
            fresh(
                f"{n:04d}",
                slot=n % SLOTS,
                owner=f"owner-{n % 50}",
                **({"due": AT + timedelta(seconds=n - 500)} if n % 2 else {}),
                **({"unsent": AT + timedelta(seconds=n - 500)} if n % 10 == 0 else {}),
            )
            for n in range(2000)
        ]
        assert set(await store.write("thing", writes)) == {Outcome.WON}
    conditions, sort = QUERIES[query]

    plan = await store.plan("thing", conditions, sort=sort, limit=200)

    assert "COLLSCAN" not in set(stages(plan)), plan
    assert {"IXSCAN", "IDHACK", "EXPRESS_IXSCAN"} & set(stages(plan)), plan
    await store.close()


async def test_a_query_by_a_field_without_an_index_is_seen_to_read_everything(mongodb_uri: str) -> None:
    store = MongoStore(mongodb_uri, f"plans-{uuid4().hex}")
    await store.ensure("thing", INDEXES)

    plan = await store.plan("thing", {"sequence": {"$gte": 1}}, sort="sequence", limit=10)

    assert "COLLSCAN" in set(stages(plan)), plan
    await store.close()


async def test_when_the_time_for_stamping_is_over_no_more_slots_are_begun(
    mongodb_uri: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease would be over, else, where many slots hold a few hundred due documents each."""
    monkeypatch.setattr(mongodb, "_STAMPING", -1.0)
    store = MongoStore(mongodb_uri, f"stamping-{uuid4().hex}", driver=driver)
    await store.ensure("thing", INDEXES)
    await store.write("thing", [fresh(f"{n:04d}", slot=n % 3, due=AT) for n in range(2400)])

    left, steps = {0: 5, 1: 5, 2: 5}, 0
    while left:
        for slot in await store.stamp("thing", left, AT):
            del left[slot]
        steps += 1

    assert steps == 3
    assert {raw["epoch"] for raw in await store.find("thing", {}, limit=5000)} == {5}
    await store.close()


# -- a process that freezes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """A store, and a transaction of another process in its database."""

    store: MongoStore
    things: AsyncCollection[dict[str, Any]]
    session: AsyncClientSession

    async def change(self, id: str) -> None:
        """Change a thing in the transaction."""
        await self.things.update_one({"_id": id}, {"$set": {"by": "a transaction"}}, session=self.session)


@pytest.fixture
async def beside(mongodb_uri: str) -> AsyncIterator[Beside]:
    """With a transaction that has begun, on a server where bulks are transactions; others group commits themselves."""
    database = f"beside-{uuid4().hex}"
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongodb_uri, retryWrites=False)
    store = MongoStore(mongodb_uri, database)
    try:
        if "secantusVersion" not in await client.admin.command("buildInfo"):
            pytest.skip("this server groups the commits of a bulk by itself: no transaction is used")
        async with client.start_session() as session:
            await session.start_transaction()
            yield Beside(store, client[database]["thing"], session)
    finally:
        await client.close()
        await store.close()


@pytest.mark.native
async def test_a_process_frozen_in_the_middle_of_a_bulk_holds_its_documents_for_seconds(beside: Beside) -> None:
    store = beside.store
    ids = [f"{n}" for n in range(10)]
    await store.write("thing", [fresh(id) for id in ids])
    assert await store.write("thing", [Write(id, 1, {"version": 2}) for id in ids]) == [Outcome.WON] * 10

    await beside.change("3")
    alone = asyncio.wait_for(store.write("thing", [Write("3", 2, {"version": 3})]), 20)
    together = asyncio.wait_for(store.write("thing", [Write(id, 2, {"version": 3}) for id in ids]), 20)
    outcomes = await asyncio.gather(alone, together)

    told = Counter(outcome for each in outcomes for outcome in each)
    assert told == {Outcome.WON: 10, Outcome.LOST: 1}
    assert {raw["version"] for raw in await store.find("thing", {})} == {3}
    with pytest.raises(PyMongoError):
        await beside.session.commit_transaction()
    assert "by" not in (await store.load("thing", ["3"]))[0]


@pytest.mark.native
@pytest.mark.parametrize("update", ["sent", "one sent", "stamp"])
async def test_an_update_of_many_documents_keeps_no_transaction_from_its_next_write(
    beside: Beside, update: str
) -> None:
    """Such an update by itself waits on that server for a document, and lets nobody write meanwhile (ADR 0013)."""
    store, over = beside.store, asyncio.Event()
    ids = [f"{n:03d}" for n in range(50)]
    await store.ensure("thing", INDEXES)
    await store.write("thing", [fresh(id, due=AT, sequence=1, unsent=AT) for id in ids])

    async def many() -> None:
        while not over.is_set():
            with suppress(StoreUnavailable):  # refused as long as the transaction stands
                if update == "sent":
                    await store.sent("thing", [(id, 1) for id in ids])
                elif update == "one sent":
                    await store.sent("thing", [(ids[0], 1)])
                else:
                    await store.stamp("thing", {0: 1}, AT)

    held, *others = ids
    await beside.change(held)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(many())
        for id in others:
            await beside.change(id)
        await beside.session.commit_transaction()
        over.set()

    assert {raw["by"] for raw in await store.load("thing", ids)} == {"a transaction"}


@pytest.mark.native
async def test_two_processes_that_change_and_empty_the_same_documents_never_wait_for_each_other(
    mongodb_uri: str, driver: Driver
) -> None:
    """A publisher empties, and a new owner stamps, what another process is just writing, in whatever order."""
    name = f"beside-{uuid4().hex}"
    one, other = (MongoStore(mongodb_uri, name, driver=driver) for _ in range(2))
    await one.ensure("thing", INDEXES)
    ids = [f"{n:03d}" for n in range(200)]
    assert await one.write("thing", [fresh(id, due=AT) for id in ids]) == [Outcome.WON] * len(ids)
    over = asyncio.Event()

    async def beside() -> None:
        while not over.is_set():
            with suppress(StoreUnavailable):  # Kept from it too often: what is left is emptied another time.
                await other.sent("thing", [(id, 1) for id in reversed(ids)])
            with suppress(StoreUnavailable):
                await other.stamp("thing", {0: 1}, AT)
            for id in reversed(ids):
                with suppress(StoreUnavailable):
                    await other.sent("thing", [(id, 1)])

    async def on() -> None:
        for version in range(1, 11):
            left = [Write(id, version, {"version": version + 1, "sequence": version}, [event(version)]) for id in ids]
            assert await one.write("thing", left) == [Outcome.WON] * len(ids)
        over.set()

    await asyncio.wait_for(asyncio.gather(on(), beside()), 120)

    assert {raw["version"] for raw in await one.find("thing", {})} == {11}
    for store in (one, other):
        await store.close()


# -- a server that dies ---------------------------------------------------------------------------------------


async def test_kill_9_under_load_loses_no_acknowledged_write(store_server: StoreServer, driver: Driver) -> None:
    store = MongoStore(store_server.uri, "killed", driver=driver, timeout=1.0)
    await store.ensure("thing", INDEXES)
    acknowledged: dict[str, int] = {}
    enough = asyncio.Event()

    async def write_on(writer: int) -> None:
        """Insert documents and record an event on each, until the server is gone."""
        number = 0
        while True:
            ids = [f"{writer}-{number + n}" for n in range(5)]
            number += len(ids)
            try:
                born = await store.write("thing", [fresh(id) for id in ids])
                acknowledged.update({id: 1 for id, o in zip(ids, born, strict=True) if o is Outcome.WON})
                changes = [Write(id, 1, {"version": 2, "sequence": 1, "unsent": AT}, [event(1)]) for id in ids]
                changed = await store.write("thing", changes)
                acknowledged.update({id: 2 for id, o in zip(ids, changed, strict=True) if o is Outcome.WON})
            except StoreUnavailable:
                return
            if len(acknowledged) >= 400:
                enough.set()

    writers = [asyncio.ensure_future(write_on(n)) for n in range(4)]
    await asyncio.wait_for(enough.wait(), 120)
    await asyncio.to_thread(store_server.kill)
    await asyncio.wait_for(asyncio.gather(*writers), 60)
    await asyncio.to_thread(store_server.start)

    stored = {raw["_id"]: raw for raw in await store.find("thing", {}, limit=1_000_000)}
    assert len(acknowledged) >= 400
    lost = {id: v for id, v in acknowledged.items() if id not in stored or stored[id]["version"] < v}
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are gone"
    halves = [id for id, raw in stored.items() if len(raw["outbox"]) != raw["version"] - 1]
    assert not halves, "a document stands without the events of its version"
    await store.close()


async def test_a_server_that_is_gone_is_unavailable_and_the_same_client_finds_it_again(
    store_server: StoreServer, driver: Driver
) -> None:
    store = MongoStore(store_server.uri, "gone", driver=driver, timeout=1.0)
    await store.ensure("thing", INDEXES)
    assert await store.write("thing", [fresh("a", due=AT)]) == [Outcome.WON]

    await asyncio.to_thread(store_server.kill)

    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.load("thing", ["a"])
    with pytest.raises(StoreUnavailable):
        await store.find("thing", {})
    with pytest.raises(StoreUnavailable):
        await store.count("thing", {})
    with pytest.raises(StoreUnavailable):
        await store.write("thing", [fresh("b")])
    with pytest.raises(StoreUnavailable):
        await store.sent("thing", [("a", 1)])
    with pytest.raises(StoreUnavailable):
        await store.stamp("thing", {0: 1}, AT)
    with pytest.raises(StoreUnavailable):
        await store.stamp_documents("thing", {"a": 1})
    with pytest.raises(StoreUnavailable):
        await store.append("trail", [{"at": AT}])
    with pytest.raises(StoreUnavailable):
        await store.ensure("other", INDEXES)
    (refusal,) = await store.write("thing", [fresh("c", value={1})])
    assert isinstance(refusal, Unstorable), "what can never be stored is refused, with or without a server"

    await asyncio.to_thread(store_server.start)

    await store.ping()
    assert await store.write("thing", [Write("a", 1, {"version": 2}), fresh("b")]) == [Outcome.WON, Outcome.WON]
    await store.close()


async def test_a_refusal_names_no_address_and_no_content() -> None:
    store = MongoStore("mongodb://user-canary:word-canary@127.0.0.1:9/", "nowhere", timeout=0.2)

    with pytest.raises(StoreUnavailable) as refused:
        await store.write("thing", [fresh("a", name="name-canary")])

    assert "canary" not in str(refused.value)
    await store.close()

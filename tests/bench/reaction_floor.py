"""The floor of the reaction path: what a patient engineer writes by hand for this one reaction, and nothing else.

Bare aiokafka and PyMongo, plain dictionaries, no validation, no tracing, no parking, no conflicts, no other events. It
makes the same round trips with the same payloads and the same durability: a batch consumed, documents found by id,
members found by id, one bulk write of conditional updates that push events to the document's outbox, the batch
committed, the events produced as whole record batches, and taken out of the outboxes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import bson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, InsertOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.write_concern import WriteConcern

NAMESPACE = UUID("6f1c9d0e-8a57-5d0b-9e55-0f6f6d1c7a11")
WANTED = "authorization.member-wanted.v1"
WANTED_TYPE = WANTED.encode()
RECORDS = 500
TRIES = 20

Document = dict[str, Any]
Update = tuple[Document, Document]
"""What an update asks of a document, and what it changes."""


class Floor:
    """One process's worth of it."""

    def __init__(self, servers: str, uri: str, database: str, prefix: str, template: bytes) -> None:
        self._requests = f"{prefix}referrals.events"
        self._wishes = f"{prefix}prior_authorization.work"
        self._consumer = AIOKafkaConsumer(
            self._requests,
            self._wishes,
            bootstrap_servers=servers,
            group_id=f"{prefix}prior_authorization.authorization",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        self._producer = AIOKafkaProducer(
            bootstrap_servers=servers,
            acks="all",
            enable_idempotence=os.environ.get("KAFKA_IDEMPOTENCE") == "true",
            max_batch_size=1024 * 1024,
        )
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(uri, tz_aware=True, retryWrites=False)
        base = self._client.get_database(database, write_concern=WriteConcern(w="majority", j=True))
        self._documents, self._members = base["authorization"], base["member"]
        self._partition_of = DefaultPartitioner()
        self._unsent: list[tuple[str, Document]] = []
        self._wanted = asyncio.Event()
        self._turn = asyncio.Lock()
        self._template: Document = bson.decode(template, CodecOptions(tz_aware=True))

    async def run(self, stopping: asyncio.Event) -> None:
        """Take in batch after batch until stopped."""
        self._server = await self._client.admin.command("buildInfo")
        await self._consumer.start()
        await self._producer.start()
        self._partitions = sorted(await self._producer.partitions_for(self._wishes))
        async with asyncio.TaskGroup() as group:  # what fails in one ends both, and is told
            publishing = group.create_task(self._publish())
            while not stopping.is_set():
                taken = await self._consumer.getmany(timeout_ms=20, max_records=RECORDS)
                if taken:
                    await self._take([record for records in taken.values() for record in records])
                    await self._consumer.commit()
            publishing.cancel()
        await self._consumer.stop()
        await self._producer.stop()
        await self._client.close()

    async def _take(self, records: list[Any]) -> None:
        events = []
        for record in records:
            headers = dict(record.headers)
            event = json.loads(record.value)
            wish = headers["ce_type"] == WANTED_TYPE
            id = event["authorization_id"] if wish else _derived("authorization", event["referral_id"])
            events.append((id, wish, event, headers, record))
        held = {each["_id"]: each async for each in self._documents.find({"_id": {"$in": [e[0] for e in events]}})}
        wishes = [event["patient_id"] for _, wish, event, _, _ in events if wish]
        known = {m["_id"]: m async for m in self._members.find({"_id": {"$in": wishes}})} if wishes else {}
        writes: dict[str, Any] = {}
        told: list[tuple[str, Document]] = []
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        for id, wish, event, headers, record in events:
            mark = f"{headers['ce_subject'].decode()}@{record.topic.replace('.', '-')}"
            sequence = int(headers["ce_sequence"])
            document = held.get(id)
            if document is not None and document["applied"].get(mark, 0) >= sequence:
                continue
            if not wish:
                if document is None:
                    trace = headers["traceparent"].decode()
                    created, entry = _opened(self._template, id, event, mark, sequence, trace, now)
                    held[id] = created
                    writes[id] = InsertOne(created)
                    told.append((id, entry))
            elif document is not None and event["patient_id"] in known:
                document["applied"][mark] = sequence
                writes[id] = _submitting(document, now)
        if writes:
            await self._write(list(writes.values()))
            self._unsent += told  # Not before: what is not written yet cannot be taken out of its outbox.
            self._wanted.set()

    async def _write(self, writes: list[InsertOne[Document] | Update]) -> None:
        """One bulk; where the service's is one commit (``shared/kit/store/commits.py``), this one is too."""
        inserts = [write for write in writes if isinstance(write, InsertOne)]
        updates = [write for write in writes if not isinstance(write, InsertOne)]
        if "secantusVersion" not in self._server:
            await self._documents.bulk_write([*inserts, *(UpdateOne(*each) for each in updates)], ordered=False)
            return
        if inserts:
            await self._documents.bulk_write(inserts, ordered=False)
        if not updates:
            return

        async def change(session: AsyncClientSession) -> None:
            wanted = {"_id": {"$in": [where["_id"] for where, _ in updates]}}
            found = self._documents.find(wanted, {"version": 1}, session=session)
            versions = {each["_id"]: each["version"] async for each in found}
            stands = [(where, change) for where, change in updates if versions.get(where["_id"]) == where["version"]]
            bulk = [UpdateOne({"_id": where["_id"]}, change) for where, change in stands]
            await self._documents.bulk_write(bulk, ordered=False, session=session)

        await self._in_one_commit(change)

    async def _take_out(self, ids: list[str]) -> None:
        emptied = ({"_id": {"$in": ids}, "sequence": 1}, {"$set": {"outbox": []}, "$unset": {"unsent": ""}})
        if "secantusVersion" not in self._server:
            await self._documents.update_many(*emptied)
            return

        async def empty(session: AsyncClientSession) -> None:
            await self._documents.update_many(*emptied, session=session)

        await self._in_one_commit(empty, WriteConcern(w=1))

    async def _in_one_commit(
        self, do: Callable[[AsyncClientSession], Awaitable[None]], concern: WriteConcern | None = None
    ) -> None:
        """Do it in a transaction, and again where the server refuses that for somebody else's write."""
        for left in reversed(range(TRIES)):
            try:
                async with (
                    self._turn,
                    self._client.start_session() as session,
                    await session.start_transaction(None, concern),
                ):
                    await do(session)
                return
            except (BulkWriteError, OperationFailure) as refusal:
                print("refused", refusal.code, flush=True)
                if not left:
                    raise

    async def _publish(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            batch, self._unsent = self._unsent, []
            by_partition = defaultdict(list)
            for id, entry in batch:
                key = id.encode()
                by_partition[self._partition_of(key, self._partitions, self._partitions)].append((key, entry))
            sent = []
            for partition, entries in by_partition.items():
                records = self._producer.create_batch()
                for key, entry in entries:
                    record = {"key": key, "value": entry["data"].encode(), "headers": _headers(key, entry)}
                    if records.append(timestamp=None, **record) is None:
                        sent.append(await self._producer.send_batch(records, self._wishes, partition=partition))
                        records = self._producer.create_batch()
                        records.append(timestamp=None, **record)
                sent.append(await self._producer.send_batch(records, self._wishes, partition=partition))
            await asyncio.gather(*sent)
            if batch:
                await self._take_out([id for id, _ in batch])


def _derived(*parts: str) -> str:
    return str(uuid5(NAMESPACE, "\x1f".join(parts)))


def _headers(key: bytes, entry: Document) -> list[tuple[str, bytes]]:
    type = entry["type"]
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", entry["id"].encode()),
        ("ce_source", b"/carerelay/prior_authorization"),
        ("ce_type", type.encode()),
        ("ce_time", entry["time"].isoformat().replace("+00:00", "Z").encode()),
        ("ce_subject", key),
        ("ce_sequence", b"%d" % entry["sequence"]),
        ("ce_dataschema", f"urn:carerelay:schema:{type}".encode()),
        ("content-type", b"application/json"),
        ("traceparent", entry["trace"].encode()),
    ]


def _opened(
    template: Document, id: str, event: Document, mark: str, sequence: int, trace: str, now: datetime
) -> tuple[Document, Document]:
    """The Authorization that a request creates, and the event in its outbox. What is the same in all is copied."""
    deadline = now + timedelta(days=2)
    entry = {
        "sequence": 1,
        "id": _derived("event", id, "1"),
        "type": WANTED,
        "topic": "prior_authorization.work",
        "time": now,
        "data": f'{{"authorization_id":"{id}","patient_id":"{event["patient_id"]}"}}',
        "trace": trace,
    }
    document = {
        **template,
        "_id": id,
        "applied": {mark: sequence},
        "timers": {"deadline": deadline},
        "trace": trace,
        "wait": {**template["wait"], "since": now, "deadline": deadline},
        "referral_id": event["referral_id"],
        "patient_id": event["patient_id"],
        "coverage_id": event["coverage_id"],
        "payer_id": event["payer_id"],
        "items": [{**template["items"][0], "service": event["service"], "quantity": event["quantity"]}],
        "diagnoses": event["diagnoses"],
        "expedited": event["expedited"],
        "specialist_id": event["specialist_id"],
        "opened_for": event["payer_id"],
        "requested_at": now,
        "changed_at": now,
        "slot": zlib.crc32(event["payer_id"].encode()) % 256,
        "due": deadline,
        "unsent": now,
        "outbox": [entry],
    }
    return document, entry


def _submitting(document: Document, now: datetime) -> Update:
    """The change that a known member leads to."""
    deadline = now + timedelta(days=1)
    change = {
        "state": "submitting",
        "applied": document["applied"],
        "timers": {"submit": now, "deadline": deadline},
        "wait": {
            "since": now,
            "deadline": deadline,
            "owner": "operator",
            "reason": "submission",
            "escalated_at": None,
        },
        "due": now,
        "version": document["version"] + 1,
    }
    return {"_id": document["_id"], "version": document["version"]}, {"$set": change}


async def main(template: bytes) -> None:
    """Run until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    e = os.environ
    floor = Floor(e["KAFKA_BOOTSTRAP_SERVERS"], e["MONGODB_URI"], e["MONGODB_DATABASE"], e["TOPIC_PREFIX"], template)
    await floor.run(stopping)


if __name__ == "__main__":
    asyncio.run(main(Path(os.environ["FLOOR_TEMPLATE"]).read_bytes()))

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
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from pymongo import AsyncMongoClient, InsertOne, UpdateOne
from pymongo.write_concern import WriteConcern

NAMESPACE = UUID("6f1c9d0e-8a57-5d0b-9e55-0f6f6d1c7a11")
WANTED = "authorization.member-wanted.v1"
WANTED_TYPE = WANTED.encode()
RECORDS = 500

Document = dict[str, Any]


class Floor:
    """One process's worth of it."""

    def __init__(self, servers: str, uri: str, database: str, prefix: str) -> None:
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

    async def run(self, stopping: asyncio.Event) -> None:
        """Take in batch after batch until stopped."""
        self._server = await self._client.admin.command("buildInfo")
        await self._consumer.start()
        await self._producer.start()
        self._partitions = sorted(await self._producer.partitions_for(self._wishes))
        publishing = asyncio.ensure_future(self._publish())
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
                    created, entry = _opened(id, event, mark, sequence, headers["traceparent"].decode(), now)
                    held[id] = created
                    writes[id] = InsertOne(created)
                    self._unsent.append((id, entry))
            elif document is not None and event["patient_id"] in known:
                document["applied"][mark] = sequence
                writes[id] = _submitting(document, now)
        if writes:
            await self._write(list(writes.values()))
            self._wanted.set()

    async def _write(self, writes: list[InsertOne[Document] | UpdateOne]) -> None:
        """One bulk; in one commit where the service does so too (``shared/kit/store/commits.py``)."""
        if "secantusVersion" not in self._server:
            await self._documents.bulk_write(writes, ordered=False)
            return
        async with self._client.start_session() as session, await session.start_transaction():
            await self._documents.bulk_write(writes, ordered=False, session=session)

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
                await self._documents.update_many(
                    {"_id": {"$in": [id for id, _ in batch]}, "sequence": 1},
                    {"$set": {"outbox": []}, "$unset": {"unsent": ""}},
                )


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


def _opened(id: str, event: Document, mark: str, sequence: int, trace: str, now: datetime) -> tuple[Document, Document]:
    """The Authorization that a request creates, and the event in its outbox."""
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
        "_id": id,
        "shape": 1,
        "version": 1,
        "sequence": 1,
        "applied": {mark: sequence},
        "timers": {"deadline": deadline},
        "attempts": {},
        "attempted": {},
        "requests": {},
        "trace": trace,
        "wait": {
            "since": now,
            "deadline": deadline,
            "owner": "coordinator",
            "reason": "member-unknown",
            "escalated_at": None,
        },
        "ended_at": None,
        "shrunk": False,
        "state": "awaiting-member",
        "referral_id": event["referral_id"],
        "patient_id": event["patient_id"],
        "coverage_id": event["coverage_id"],
        "payer_id": event["payer_id"],
        "service": event["service"],
        "diagnoses": event["diagnoses"],
        "quantity": event["quantity"],
        "expedited": event["expedited"],
        "specialist_id": event["specialist_id"],
        "opened_for": event["payer_id"],
        "requested_at": now,
        "terms": {
            "why": "default",
            "needed": True,
            "appeal": "automatic",
            "appeal_levels": 1,
            "timezone": "America/New_York",
            "opens": 8,
            "closes": 18,
            "decision_hours": 168,
            "appeal_hours": 720,
            "poll_minutes": 15,
        },
        "submissions": [],
        "claim_id": None,
        "appeal_id": None,
        "cancel_id": None,
        "cancel_reason": None,
        "carried_to": None,
        "current": None,
        "history": [],
        "contradictions": [],
        "troubles": [],
        "failures": 0,
        "refusals": 0,
        "polled_at": None,
        "polls": 0,
        "share": 0,
        "epoch": 0,
        "epoch_poll": 0,
        "slot": zlib.crc32(event["payer_id"].encode()) % 256,
        "due": deadline,
        "unsent": now,
        "outbox": [entry],
    }
    return document, entry


def _submitting(document: Document, now: datetime) -> UpdateOne:
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
    return UpdateOne({"_id": document["_id"], "version": document["version"]}, {"$set": change})


async def main() -> None:
    """Run until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    e = os.environ
    floor = Floor(e["KAFKA_BOOTSTRAP_SERVERS"], e["MONGODB_URI"], e["MONGODB_DATABASE"], e["TOPIC_PREFIX"])
    await floor.run(stopping)


if __name__ == "__main__":
    asyncio.run(main())

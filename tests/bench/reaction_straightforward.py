"""The straightforward service for the reaction path: FastStream as its documentation shows it, one message at a time.

The same model and the same decisions as the real one, and nothing of the kit around them: a message is validated, its
document found, decided on, replaced, the event published, the message acknowledged. It loses an event when it dies
between replacing and publishing, and overwrites what another process wrote meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from pymongo import AsyncMongoClient
from pymongo.write_concern import WriteConcern

from services.prior_authorization.model import Authorization, Member, authorization_id
from services.prior_authorization.model.opening import consider_member, request
from services.prior_authorization.service import Settings, rules_of
from shared.contracts.prior_authorization import MemberWanted
from shared.contracts.referrals import AuthorizationRequested
from shared.kit.decisions import Facts, Ref

GROUPS = ("straightforward.requests", "straightforward.wishes")


def service(servers: str, uri: str, database: str, prefix: str) -> tuple[KafkaBroker, Any]:
    """The broker with its two subscribers, and the store's client."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, tz_aware=True)
    base = client.get_database(database, write_concern=WriteConcern(w="majority", j=True))
    documents, members = base["authorization"], base["member"]
    rules = rules_of(Settings())
    broker = KafkaBroker(servers, acks="all", logger=None)
    requests, wishes = f"{prefix}referrals.events", f"{prefix}prior_authorization.work"

    async def load(id: str) -> Authorization | None:
        stored = await documents.find_one({"_id": id})
        return Authorization.model_validate({"id": id, **stored}) if stored else None

    async def save(authorization: Authorization) -> None:
        stored = {"_id": authorization.id, **authorization.model_dump(mode="json", exclude={"id"})}
        await documents.replace_one({"_id": authorization.id}, stored, upsert=True)

    async def publish(authorization: Authorization, trace: str) -> None:
        for event in authorization.recorded():
            headers = {
                "ce_specversion": "1.0",
                "ce_id": str(uuid4()),
                "ce_source": "/carerelay/prior_authorization",
                "ce_type": event.type,
                "ce_time": datetime.now(UTC).isoformat(),
                "ce_subject": authorization.id,
                "ce_sequence": str(authorization.sequence + 1),
                "ce_dataschema": f"urn:carerelay:schema:{event.type}",
                "traceparent": trace,
            }
            await broker.publish(event, topic=wishes, key=authorization.id.encode(), headers=headers)

    @broker.subscriber(requests, group_id=GROUPS[0], auto_offset_reset="earliest", ack_policy=AckPolicy.MANUAL)
    async def requested(event: AuthorizationRequested, message: KafkaMessage) -> None:
        authorization = await load(authorization_id(event.referral_id))
        authorization = request(rules, authorization, event, Facts(), datetime.now(UTC))
        await save(authorization)
        await publish(authorization, message.headers["traceparent"])
        await message.ack()

    @broker.subscriber(wishes, group_id=GROUPS[1], auto_offset_reset="earliest", ack_policy=AckPolicy.MANUAL)
    async def wanted(event: MemberWanted, message: KafkaMessage) -> None:
        authorization = await load(event.authorization_id)
        stored = await members.find_one({"_id": event.patient_id})
        if authorization is not None and stored is not None:
            member = Member.model_validate({"id": event.patient_id, **stored})
            facts = Facts({Ref(Member, member.id): [member]})
            authorization = consider_member(rules, authorization, event, facts, datetime.now(UTC))
            await save(authorization)
            await publish(authorization, message.headers["traceparent"])
        await message.ack()

    return broker, client


async def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.WARNING)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    e = os.environ
    broker, client = service(e["KAFKA_BOOTSTRAP_SERVERS"], e["MONGODB_URI"], e["MONGODB_DATABASE"], e["TOPIC_PREFIX"])
    await broker.start()
    await stopping.wait()
    await broker.stop()
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())

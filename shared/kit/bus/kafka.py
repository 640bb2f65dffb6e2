"""The bus on Kafka's protocol: FastStream batch subscribers, and an aiokafka producer that sends whole batches.

With its neighbours ``desk``, ``watching`` and ``security`` the only module that imports them. Each
default that would lose, skip or block is set here, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import IllegalStateError, KafkaError, NoError, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import DefaultPartitioner
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage

from shared.kit import metrics
from shared.kit.bus import desk
from shared.kit.bus.login import Login
from shared.kit.bus.port import (
    Batch,
    GoingBack,
    Handler,
    Lag,
    Message,
    Place,
    Positions,
    PublishFailed,
    ReadFailed,
    Reassigned,
    Record,
    Topic,
    nobody,
)
from shared.kit.bus.security import Access
from shared.kit.bus.watching import Unread, Watch, cut
from shared.kit.telemetry import Telemetry, log, where_raised

Timed = Callable[[str, str, Mapping[str, str]], AbstractContextManager[None]]
"""``(operation, its type, attributes)``: around one operation of a client."""

_PARTITIONER = DefaultPartitioner()
"""Kafka's own murmur2 by key, the same in every client."""

_QUIET = logging.getLogger("carerelay.faststream")
_QUIET.setLevel(logging.ERROR)
"""What FastStream says below an error is of no use to an operator: that topics are not created by it, for one."""

_PATIENCE_MS = 500
"""How long one read waits for records; none waits for it to end."""

_QUIET_FOR = 1.0
"""Seconds without a record after which a topic is read to its end: a broker may tell an end that is a batch low."""

_STILL = 5.0
"""Seconds for which records behind that end are still taken: on a busy topic there are always more."""

_IDLE = 10
"""So many times as long a member without partitions may see its group stand still: others may be slow, not it."""

_PARTING = 5.0
"""Seconds that a client which is replaced may take to stop; its connections are cut before."""

_BATCH_BYTES = 1024 * 1024
_MAX_REQUEST_BYTES = 2 * 1024 * 1024


class KafkaBus:
    """A connection of one process to the broker."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_id: str = "carerelay",
        login: Login | None = None,
        tls: SSLContext | None = None,
        partitions: int = 12,
        replication: int = 1,
        idempotence: bool = False,
        request_timeout: float = 10.0,
        session_timeout: float = 6.0,
        poll: float = 0.02,
        watch_every: float = 5.0,
        stuck_after: float = 30.0,
        replacements: int = 3,
        drain: float = 30.0,
        telemetry: Telemetry | None = None,
    ) -> None:
        """A group that stands still for ``stuck_after`` seconds before unread records, with nothing in work, gets a new
        client; after ``replacements`` of them in vain this process is not ``alive`` any more. A batch in work may take
        ``drain`` seconds to its end when its group is left.
        """
        self.positions = Positions()
        self._access = Access(bootstrap_servers, client_id, login, tls)
        self._partitions = partitions
        self._replication = replication
        self._idempotence = idempotence
        self._request_timeout = request_timeout
        self._session_timeout = session_timeout
        self._poll = poll
        self._producer: AIOKafkaProducer | None = None
        self._watch_every = watch_every
        self._stuck_after = stuck_after
        self._replacements = replacements
        self._drain = drain
        self._telemetry = telemetry or Telemetry.quiet()
        self._watch = Watch(self._access, request_timeout)
        self._watching: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self.looked = asyncio.Event()
        """Set behind each look at whether readers get on; for whoever waits for one."""
        self._reached = True
        """Whether the broker answered when it was last asked from outside."""
        self._subscriptions: list[_Subscription] = []
        self._paused: set[str] = set()
        self._topic_partitions: dict[str, list[int]] = {}
        self._lag: list[Lag] = []

    async def ensure(self, topics: Sequence[str]) -> None:
        """Create the topics that are missing, with the partitions set for new ones. Raises KafkaError for a refusal."""
        admin = AIOKafkaAdminClient(**self._access.options())
        await admin.start()
        try:
            present = set(await admin.list_topics())
            missing = [
                NewTopic(name=name, num_partitions=self._partitions, replication_factor=self._replication)
                for name in topics
                if name not in present
            ]
            if missing:
                _refused(await admin.create_topics(missing))
        finally:
            await admin.close()

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailed | None]:
        """Send the messages, each partition's as record batches that the broker takes whole or not at all."""
        if self._producer is None:
            return [PublishFailed("not connected")] * len(messages)
        results: list[PublishFailed | None] = [None] * len(messages)
        by_partition: dict[tuple[str, int], list[int]] = defaultdict(list)
        for place, message in enumerate(messages):
            try:
                partition = await self._partition(message)
            except KafkaError as error:
                results[place] = PublishFailed(type(error).__name__)
            else:
                by_partition[message.topic, partition].append(place)
        await asyncio.gather(
            *(self._send(topic, part, places, messages, results) for (topic, part), places in by_partition.items())
        )
        return results

    async def _partition(self, message: Message) -> int:
        known = self._topic_partitions.get(message.topic)
        if known is None:
            assert self._producer is not None  # noqa: S101 - publish has seen to it
            known = sorted(await self._producer.partitions_for(message.topic))
            self._topic_partitions[message.topic] = known
        return partition_of(message.key, known)

    async def _send(
        self,
        topic: str,
        partition: int,
        places: Sequence[int],
        messages: Sequence[Message],
        results: list[PublishFailed | None],
    ) -> None:
        """Send one partition's messages. After a batch fails, the rest is not sent: order matters more than haste."""
        assert self._producer is not None  # noqa: S101 - publish has seen to it
        waiting = list(places)
        failed: PublishFailed | None = None
        while waiting and failed is None:
            batch = self._producer.create_batch()
            taken: list[int] = []
            for place in waiting:
                message = messages[place]
                added = batch.append(
                    timestamp=None, key=message.key.encode(), value=message.value, headers=list(message.headers)
                )
                if added is None:
                    break
                taken.append(place)
            # A batch takes its first message whatever its size: what Kafka would refuse is refused here.
            if not taken or batch.size() > _BATCH_BYTES:
                results[waiting.pop(0)] = failed = PublishFailed("larger than a batch")
                break
            try:
                with self._timed("send", "send", {metrics.DESTINATION: topic}):
                    future = await self._producer.send_batch(batch, topic, partition=partition)
                    acknowledged = await future
            except (KafkaError, OSError) as error:
                failed = PublishFailed(type(error).__name__)
                self._topic_partitions.pop(topic, None)
                break
            place_name = f"{topic}:{partition}"
            after = acknowledged.offset + len(taken)
            self.positions.published[place_name] = max(self.positions.published.get(place_name, 0), after)
            waiting = waiting[len(taken) :]
        for place in waiting:
            results[place] = failed

    @contextlib.contextmanager
    def _timed(self, operation: str, kind: str, about: Mapping[str, str]) -> Iterator[None]:
        """Time one operation of a client."""
        now = asyncio.get_running_loop().time
        told = {metrics.SYSTEM: "kafka", metrics.OPERATION: operation, metrics.OPERATION_TYPE: kind, **about}
        began = now()
        try:
            yield
        except Exception as error:
            self._telemetry.operations.record(now() - began, {**told, metrics.ERROR: type(error).__name__})
            raise
        self._telemetry.operations.record(now() - began, told)

    def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        handler: Handler,
        *,
        max_records: int = 500,
        reassigned: Reassigned = nobody,
    ) -> None:
        """Have a consumer group read topics from their beginning."""
        subscription = _Subscription(group, tuple(topics), handler, max_records, self.positions, self._timed)
        subscription.reassigned = reassigned
        subscription.paused = group in self._paused
        self._subscriptions.append(subscription)

    def pause(self, group: str) -> None:
        """Read nothing more for a group of this process until ``resume``."""
        self._paused.add(group)
        for subscription in self._of(group):
            subscription.pause(True)

    def resume(self, group: str) -> None:
        """Read on for a group, from where it stood."""
        self._paused.discard(group)
        for subscription in self._of(group):
            subscription.pause(False)

    def go_back(self, group: str, order: GoingBack | None) -> None:
        """Have this process's partitions of a group read again."""
        for subscription in self._of(group):
            subscription.order(order)

    def _of(self, group: str) -> list[_Subscription]:
        return [subscription for subscription in self._subscriptions if subscription.group == group]

    async def standing(self, group: str, topics: Sequence[str], at: datetime) -> list[Place]:
        """How far a group has read topics, as the broker tells whoever asks."""
        return await desk.standing(self._access, group, topics, at)

    async def described(self, topics: Sequence[str]) -> list[Topic]:
        """Those of these topics that there are."""
        return await desk.described(self._access, topics)

    async def history(self, topic: str, keys: Collection[str] | None = None) -> AsyncGenerator[Batch]:
        """All that stands on a topic, or on the partitions of these keys, to its end as it is found."""
        consumer = AIOKafkaConsumer(
            **self._access.options(),
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            request_timeout_ms=int(self._request_timeout * 1000),
        )
        try:
            with desk.answering():
                await consumer.start()
                there = (await desk.partitions(self._access, [topic])).get(topic)
                if there is None:
                    raise ReadFailed(f"there is no topic {topic}")
                wanted = there if keys is None else sorted({partition_of(key, there) for key in keys})
                if not wanted:
                    return
                parts = [TopicPartition(topic, part) for part in wanted]
                consumer.assign(parts)
                await consumer.seek_to_beginning(*parts)
                async for batch in self._to_the_end(consumer, await consumer.end_offsets(parts)):
                    yield batch
        finally:
            await desk.parted(consumer.stop())

    async def _to_the_end(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> AsyncIterator[Batch]:
        clock = asyncio.get_running_loop().time
        heard = clock()
        reached: float | None = None
        while reached is None or clock() - reached < _STILL:
            found = await consumer.getmany(timeout_ms=int(_QUIET_FOR * 1000))
            for records in found.values():
                yield [Record(r.topic, r.partition, r.offset, r.key, r.value, _headers(r.headers)) for r in records]
            if reached is None and await self._all_read(consumer, ends):
                reached = clock()
            if found:
                heard = clock()
            elif reached is not None:
                return
            elif clock() - heard > self._request_timeout:
                raise ReadFailed("its end was not reached")

    async def _all_read(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
        for partition, end in ends.items():
            if await consumer.position(partition) < end:
                return False
        return True

    async def start(self) -> None:
        """Connect; begin to read what was subscribed."""
        self._producer = AIOKafkaProducer(
            **self._access.options(),
            acks="all",
            enable_idempotence=self._idempotence,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_MAX_REQUEST_BYTES,
            request_timeout_ms=int(self._request_timeout * 1000),
        )
        await self._producer.start()
        # A FastStream broker a group, so that groups join at the same time: one broker starts them one after another,
        # and a join takes seconds.
        await asyncio.gather(*(self._join(subscription) for subscription in self._subscriptions))
        if self._subscriptions:
            self._watching = asyncio.ensure_future(self._look_on())

    async def _join(self, subscription: _Subscription) -> None:
        subscription.broker = self._reader(subscription)
        await subscription.broker.start()

    def _reader(self, subscription: _Subscription) -> KafkaBroker:
        broker = KafkaBroker(
            self._access.servers,
            client_id=self._access.client_id,
            security=self._access.security(),
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            graceful_timeout=self._drain,
            logger=_QUIET,
            log_level=logging.DEBUG,
        )
        subscriber = broker.subscriber(
            *subscription.topics,
            batch=True,
            group_id=subscription.group,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            max_records=subscription.max_records,
            batch_timeout_ms=int(self._poll * 1000),
            fetch_max_wait_ms=500,
            session_timeout_ms=int(self._session_timeout * 1000),
            heartbeat_interval_ms=int(self._session_timeout * 1000 / 3),
            max_poll_interval_ms=30 * 60 * 1000,
            listener=subscription.listener,
            parser=subscription.parse,
            decoder=_as_it_is,
        )
        subscriber(subscription.handle)
        subscription.subscriber = subscriber
        return broker

    # -- whether readers get on -----------------------------------------------------------------------------

    async def _look_on(self) -> None:
        """Look, now and then, whether each group gets on; give one that does not a new client."""
        while not self._leaving.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), self._watch_every)
                return
            try:
                await self._look()
            except (KafkaError, OSError, TimeoutError) as error:
                # Nobody can read now. Who gets on afterwards is judged by the looks that reach the broker again.
                log.warning("broker.unreachable", error=type(error).__name__)
                self._reached = False
            except Exception as error:
                log.error("watch.failed", error=where_raised(error), exc_info=error)
            self.looked.set()

    async def _look(self) -> None:
        found: list[Lag] = []
        for subscription in self._subscriptions:
            places = subscription.places()
            # A member without partitions may be one too many, or one that the group has lost.
            everywhere = places or await self._watch.committed(subscription.group, subscription.topics)
            working = dict(subscription.working)
            unread = await self._watch.unread(everywhere, working)
            if places:
                found.extend(subscription.lag(unread, working))
            behind = any(each.records for each in unread.values())
            idle = subscription.listener.joined and not places
            patience = self._stuck_after * (_IDLE if idle else 1)
            if subscription.stuck(everywhere, behind, asyncio.get_running_loop().time(), patience):
                await self._replace(subscription, idle=idle)
        self._lag = found
        self._reached = True

    async def _replace(self, subscription: _Subscription, *, idle: bool) -> None:
        """Stop a group's client, whatever it hangs in, and join with a new one.

        A member without partitions is never given up for lost: it may be that the others of its group are slow.
        """
        if not idle and subscription.replaced >= self._replacements:
            if not subscription.lost:
                log.error("reader.lost", group=subscription.group, replaced=subscription.replaced)
            subscription.lost = True
            return
        subscription.replaced += 1
        log.warning("reader.replaced", group=subscription.group, times=subscription.replaced)
        self._telemetry.replaced.add(1, {metrics.GROUP: subscription.group})
        await self._part(subscription)
        try:
            # The group may first have to find that the member which was cut off is gone.
            await asyncio.wait_for(self._join(subscription), 3 * self._session_timeout)
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("reader.not-joined", group=subscription.group, error=type(error).__name__)

    async def _part(self, subscription: _Subscription) -> None:
        """Be rid of a group's client. Nothing of it is in work."""
        broker, subscription.broker = subscription.broker, None
        consumer = getattr(subscription.subscriber, "consumer", None)
        subscription.listener.joined = False
        subscription.consumed.clear()
        if broker is None:
            return
        await cut(consumer)
        try:
            await asyncio.wait_for(broker.stop(), _PARTING)
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("reader.abandoned", group=subscription.group, error=type(error).__name__)
            await cut(consumer)

    # -- its end --------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Read no more: finish the batches in work, commit them, leave the groups."""
        if self._leaving.is_set():
            return
        self._leaving.set()
        for subscription in self._subscriptions:
            subscription.stopping.set()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        brokers = [each.broker for each in self._subscriptions if each.broker is not None]
        await asyncio.gather(*(broker.stop() for broker in brokers))
        for subscription in self._subscriptions:
            subscription.broker = None
        await self._watch.close()

    async def stop(self) -> None:
        """Leave the groups, if that was not done, and flush what was handed over."""
        await self.leave()
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    def healthy(self) -> bool:
        """Whether it is connected, and each group that was subscribed has been given its place and can be read."""
        return self._producer is not None and self._reached and all(s.listener.joined for s in self._subscriptions)

    def alive(self) -> bool:
        """Whether its readers get on: False where one stands still before unread records and could not be helped."""
        return not any(subscription.lost for subscription in self._subscriptions)

    def lag(self) -> Sequence[Lag]:
        """How far the groups of this client are behind, as it was last looked at; one entry a group and topic."""
        return tuple(self._lag)


def _refused(answer: Any) -> None:
    """Raise what the broker refused a topic for; the library leaves that to whoever asked."""
    for _, code, *_ in answer.topic_errors:
        error = for_code(code)
        # Another process may be first; that is what was wanted.
        if error not in (NoError, TopicAlreadyExistsError):
            raise error


async def _as_it_is(message: Any) -> Any:
    """A decoder that decodes nothing: an undecodable record is the handler's business, and must not lose a batch."""
    return message


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    """A record's headers; one without a value, which the protocol allows, is an empty one."""
    return tuple((name, value or b"") for name, value in headers)


class _Joined(ConsumerRebalanceListener):  # type: ignore[misc]
    """Knows whether the group has given this consumer its place, and from where it reads on."""

    def __init__(self, subscription: _Subscription) -> None:
        self.joined = False
        self._subscription = subscription

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """What is revoked is somebody else's to tell about."""
        self._subscription.reassigned()
        for partition in revoked:
            self._subscription.consumed.pop(f"{partition.topic}:{partition.partition}", None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note the committed positions from which reading goes on."""
        self._subscription.reassigned()
        self.joined = True
        consumer = getattr(self._subscription.subscriber, "consumer", None)
        self._subscription.wait_at(consumer)
        for partition in assigned:
            committed = await consumer.committed(partition) if consumer is not None else None
            self._subscription.consumed[f"{partition.topic}:{partition.partition}"] = committed or 0


class _Subscription:
    """One consumer group in this process."""

    def __init__(
        self,
        group: str,
        topics: tuple[str, ...],
        handler: Handler,
        max_records: int,
        positions: Positions,
        timed: Timed,
    ) -> None:
        self.group = group
        self.topics = topics
        self.max_records = max_records
        self.stopping = asyncio.Event()
        self.consumed = positions.consumed.setdefault(group, {})
        self.reassigned: Reassigned = nobody
        self.listener = _Joined(self)
        self.broker: KafkaBroker | None = None
        self.subscriber: Any = None
        self.working: dict[TopicPartition, datetime] = {}
        """The partitions of the batch in work, and since when their first record of it stands there."""
        self.handling = False
        """Whether it is still with its handler, and not only being committed: a commit can hang with its client."""
        self.replaced = 0
        """How many clients it was given since it last got on."""
        self.lost = False
        self._seen: dict[TopicPartition, int] = {}
        self._still_since: float | None = None
        """When it was last seen to get on; None before the first look."""
        self.paused = False
        self._handler = handler
        self._timed = timed
        self._waiting_at: Any = None
        self._order: GoingBack | None = None
        self._gone_back: set[str] = set()

    def pause(self, paused: bool) -> None:
        """Have it read from nowhere, or read on; also what a read under way finds waits."""
        self.paused = paused
        if self._waiting_at is not None:
            self._keep_pause(self._waiting_at)

    def _keep_pause(self, consumer: AIOKafkaConsumer) -> None:
        if self.paused:
            consumer.pause(*consumer.assignment())  # also what a rebalance has brought meanwhile
        elif stopped := consumer.paused():
            consumer.resume(*stopped)

    def order(self, order: GoingBack | None) -> None:
        """Take an order to go back; one that is known only tells what others have done of it."""
        if order is None or self._order is None or self._order.number != order.number:
            self._gone_back = set()
        self._order = order
        self._gone_back |= order.done if order is not None else frozenset()

    def places(self) -> dict[TopicPartition, int]:
        """The partitions that this member has, and the next offset of each that it has not committed."""
        found = {}
        for place, offset in self.consumed.items():
            topic, _, partition = place.rpartition(":")
            found[TopicPartition(topic, int(partition))] = offset
        return found

    def lag(self, unread: Mapping[TopicPartition, Unread], working: Mapping[TopicPartition, datetime]) -> Iterable[Lag]:
        """By topic, what is unread, and since when: also the batch in work is not committed yet."""
        for topic in self.topics:
            mine = {place: each for place, each in unread.items() if place.topic == topic}
            since = [each.since for each in mine.values() if each.since is not None]
            since += [at for place, at in working.items() if place.topic == topic]
            records = sum(max(each.records, int(place in working)) for place, each in mine.items())
            yield Lag(self.group, topic, records, min(since, default=None))

    def stuck(self, places: Mapping[TopicPartition, int], behind: bool, now: float, patience: float) -> bool:
        """Whether it has stood still for so long before unread records, with nothing in work.

        A new client is given twice the time of the one before: a group whose members are replaced is a group that is
        shared out anew.
        """
        moved = any(self._seen.get(place, offset) != offset for place, offset in places.items())
        self._seen |= places
        if moved or not behind or self.paused:
            self.replaced, self.lost = 0, False
        elif not self.handling and self._still_since is not None:
            return now - self._still_since >= patience * (1 << self.replaced)
        self._still_since = now
        return False

    def wait_at(self, consumer: Any) -> None:
        """Have ``consumer`` be read from as soon as it has something, and not before.

        FastStream's batch reader sleeps behind every empty read, as long as it waited for it: records that come
        meanwhile wait too, and the shorter the sleep is made the more a reader of a quiet topic computes.
        """
        if consumer is None or consumer is self._waiting_at:
            return
        read, self._waiting_at = consumer.getmany, consumer

        async def until_there_is(*, timeout_ms: int, max_records: int | None) -> Any:
            while not self.stopping.is_set():
                await self._heed(consumer)
                found = await read(timeout_ms=_PATIENCE_MS, max_records=max_records)
                if found and not self.stopping.is_set():
                    return found
            # Nothing more is handed over, and so committed: the batch before may have been left undone.
            return {}

        consumer.getmany = until_there_is

    async def _heed(self, consumer: AIOKafkaConsumer) -> None:
        """Between two batches: read from nowhere while paused, and go back where that was ordered."""
        try:
            self._keep_pause(consumer)
            if self._order is not None:
                await self._go_back(consumer, self._order)
        except Exception as error:  # As in the middle of a rebalance: it is tried again before the next read.
            log.info("orders.wait", group=self.group, error=where_raised(error))

    async def _go_back(self, consumer: AIOKafkaConsumer, order: GoingBack) -> None:
        """Set the positions of what this process holds back, commit them, and tell."""
        left = {
            place: partition
            for partition in consumer.assignment()
            if (place := f"{partition.topic}:{partition.partition}") not in self._gone_back
        }
        if not left:
            return
        since = await desk.since(consumer, left.values(), order.to)
        for place, partition in left.items():
            stands = await consumer.position(partition)
            offset = min(stands, since.get(partition, stands))
            consumer.seek(partition, offset)
            await consumer.commit({partition: offset})
            self.consumed[place] = offset
            await order.moved(place, offset)
            self._gone_back.add(place)

    async def parse(self, records: Any) -> KafkaAckableMessage:
        """A FastStream message around raw records; nothing in it is decoded."""
        return KafkaAckableMessage(body=b"", raw_message=records, consumer=self.subscriber.consumer)

    async def handle(self, message: Any) -> None:
        """Hand a batch to the handler until it is done, then commit.

        The handler is asked again for as long as it raises: going on would commit past it, and handing the batch back
        to FastStream would spin. When the process stops meanwhile, the batch stays uncommitted and is read again.
        """
        records = [
            Record(r.topic, r.partition, r.offset, r.key, r.value, _headers(r.headers)) for r in message.raw_message
        ]
        for record in message.raw_message:
            place = TopicPartition(record.topic, record.partition)
            self.working.setdefault(place, datetime.fromtimestamp(max(0, record.timestamp) / 1000, UTC))
        try:
            if await self._handled(records):
                await self._commit(message, records)
        finally:
            self.handling = False
            self.working.clear()

    async def _handled(self, records: Batch) -> bool:
        """Whether the handler took the batch; not where the process stops while it keeps raising."""
        self.handling = True
        delay = 0.05
        while True:
            try:
                await self._handler(records)
                return True
            except Exception as error:
                log.warning("batch.retried", group=self.group, records=len(records), error=where_raised(error))
            try:
                await asyncio.wait_for(self.stopping.wait(), delay)
            except TimeoutError:
                delay = min(delay * 2, 5.0)
            else:
                return False

    async def _commit(self, message: Any, records: Batch) -> None:
        self.handling = False
        try:
            with self._timed("commit", "settle", {metrics.GROUP: self.group}):
                await message.ack()
        except (KafkaError, IllegalStateError) as error:
            # The group was rebalanced meanwhile: whoever has the partition now reads the batch again, for nothing.
            log.info("commit.refused", group=self.group, error=type(error).__name__)
            return
        for record in records:
            self.consumed[f"{record.topic}:{record.partition}"] = record.offset + 1


def partition_of(key: str, partitions: Sequence[int]) -> int:
    """The partition of a key among a topic's, as every Kafka client chooses it."""
    partition: int = _PARTITIONER(key.encode(), list(partitions), list(partitions))
    return partition

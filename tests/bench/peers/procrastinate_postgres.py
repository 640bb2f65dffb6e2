"""Procrastinate on PostgreSQL: a reminder is a job with a time."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, LiteralString

from tests.bench.peers.servers import lacks, postgres_folder, start_postgres
from tests.bench.peers.text import recipient_of, visit_of
from tests.bench.reminders_processes import Processes, passed
from tests.bench.reminders_sides import Reminder

if TYPE_CHECKING:
    from procrastinate import App
    from psycopg import AsyncConnection

NAME = "Procrastinate, PostgreSQL"
WORKERS = 2
IN_FLIGHT = 20
_CHUNK = 1000

HOW = (
    f"Procrastinate: {WORKERS} workers (one a core) of {IN_FLIGHT} asynchronous jobs each on uvloop, a pool of as many "
    "connections and one more as its documentation says, polling every 0.5 s (CareRelay's own interval; its default is "
    "5 s), done jobs deleted; aiohttp and psycopg's pool in the jobs; PostgreSQL as it comes, with 1 GB of shared "
    "buffers. Half of what only waits was scheduled before what is due, half after: it looks through jobs in the order "
    "in which they were scheduled."
)


def lacking() -> str | None:
    """Why it cannot be measured here, or None."""
    if reason := lacks("procrastinate", "psycopg", "psycopg_pool"):
        return reason
    return None if postgres_folder() else "no PostgreSQL (initdb, postgres) on PATH"


class ProcrastinatePostgres:
    """The side; see ``reminders_sides.Side``."""

    name = NAME

    def __init__(self, app: App, database: AsyncConnection, workers: Sequence[int], server: int) -> None:
        self._app = app
        self._database = database
        self._behind: list[Reminder] = []
        self._after = 0
        self.workers = workers
        self.servers = [server]

    async def pend(self, reminders: Sequence[Reminder]) -> None:
        """Schedule one half, and keep the other for behind what is due."""
        half = len(reminders) // 2
        await self._defer(reminders[:half])
        self._behind.extend(reminders[half:])
        await self._database.execute("VACUUM ANALYZE")

    async def enqueue(self, reminders: Sequence[Reminder]) -> None:
        """Store persons and visits, and schedule the jobs before the second half of what only waits."""
        await self._database.execute(
            "DELETE FROM procrastinate_jobs WHERE id > %s AND status = 'todo'", (self._last(),)
        )
        async with self._database.cursor() as cursor:
            columns = "(id, mobile, language, timezone, consent)"
            async with cursor.copy(f"COPY recipient {columns} FROM STDIN") as copy:
                for each in reminders:
                    row = recipient_of(each)
                    await copy.write_row([row[name] for name in ("id", "mobile", "language", "timezone", "consent")])
            async with cursor.copy("COPY visit (id, patient_id, start, timezone, state) FROM STDIN") as copy:
                for each in reminders:
                    row = visit_of(each)
                    await copy.write_row([row[name] for name in ("id", "patient_id", "start", "timezone", "state")])
        await self._defer(reminders)
        self._after = await self._number("SELECT max(id) FROM procrastinate_jobs")
        await self._defer(self._behind)
        await self._database.execute("VACUUM ANALYZE")

    def key(self, reminder: Reminder) -> str:
        """The reminder's id."""
        return reminder.id

    async def kept(self) -> int:
        """How many outcomes PostgreSQL holds."""
        return await self._number("SELECT count(*) FROM outcome")

    def _last(self) -> int:
        return self._after if self._after else 2**62

    async def _number(self, query: LiteralString) -> int:
        row = await (await self._database.execute(query)).fetchone()
        return int(row[0] or 0) if row else 0

    async def _defer(self, reminders: Sequence[Reminder]) -> None:
        from procrastinate.jobs import Job

        from tests.bench.peers.procrastinate_tasks import TASK

        jobs = [
            Job(
                id=None,
                queue="reminders",
                lock=None,
                queueing_lock=None,
                task_name=TASK,
                scheduled_at=each.due,
                task_kwargs={
                    "reminder_id": each.id,
                    "patient_id": each.patient_id,
                    "appointment_id": each.appointment_id,
                },
            )
            for each in reminders
        ]
        for begin in range(0, len(jobs), _CHUNK):
            await self._app.job_manager.batch_defer_jobs_async(jobs[begin : begin + _CHUNK])


@asynccontextmanager
async def running(processes: Processes, gateway_url: str) -> AsyncIterator[ProcrastinatePostgres]:
    """PostgreSQL and the workers, ready."""
    import psycopg

    from tests.bench.peers.procrastinate_tasks import SCHEMA, app_of

    server, conninfo = await start_postgres(processes)
    app = app_of(conninfo, 4)
    database = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    async with app.open_async(), database:
        await app.schema_manager.apply_schema_async()
        await database.execute(SCHEMA)
        environment = {
            "REMINDERS_POSTGRES": conninfo,
            "REMINDERS_GATEWAY": gateway_url,
            "REMINDERS_IN_FLIGHT": str(IN_FLIGHT),
        }
        argv = [sys.executable, "-m", "tests.bench.peers.procrastinate_tasks"]
        workers = [processes.start("procrastinate", argv, environment=environment) for _ in range(WORKERS)]
        while await _registered(database) < WORKERS:
            processes.check()
            await passed(0.1)
        try:
            yield ProcrastinatePostgres(app, database, [worker.pid for worker in workers], server.pid)
        finally:
            for worker in workers:
                processes.stop(worker)


async def _registered(database: AsyncConnection) -> int:
    row = await (await database.execute("SELECT count(*) FROM procrastinate_workers")).fetchone()
    return int(row[0]) if row else 0

"""Procrastinate's worker: ``python -m tests.bench.peers.procrastinate_tasks``. One job sends one reminder."""

from __future__ import annotations

import os

import aiohttp
import uvloop
from procrastinate import App, PsycopgConnector, RetryStrategy
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.bench.peers.text import message, wanted

SCHEMA = """
CREATE TABLE recipient (
    id text PRIMARY KEY, mobile text NOT NULL, language text NOT NULL, timezone text NOT NULL, consent boolean NOT NULL
);
CREATE TABLE visit (
    id text PRIMARY KEY, patient_id text NOT NULL, start timestamptz NOT NULL, timezone text NOT NULL,
    state text NOT NULL
);
CREATE TABLE outcome (id text PRIMARY KEY, state text NOT NULL, gateway_id text, at timestamptz NOT NULL);
"""
_LOAD = """
SELECT recipient.mobile, recipient.language, recipient.consent, visit.start, visit.timezone, visit.state
FROM visit JOIN recipient ON recipient.id = visit.patient_id WHERE visit.id = %s
"""
_KEEP = """
INSERT INTO outcome VALUES (%s, %s, %s, now())
ON CONFLICT (id) DO UPDATE SET state = excluded.state, gateway_id = excluded.gateway_id, at = excluded.at
"""

TASK = "send_reminder"
POLL_SECONDS = 0.5


def app_of(conninfo: str, connections: int) -> App:
    """The app on a database, with a pool of so many connections."""
    return App(connector=PsycopgConnector(conninfo=conninfo, min_size=2, max_size=connections))


async def work(conninfo: str, gateway: str, in_flight: int) -> None:
    """Run jobs until the process is ended."""
    # "your pool will need to contain as many connections as your concurrency (plus one)" (Discussions)
    app = app_of(conninfo, in_flight + 1)
    pool = AsyncConnectionPool(conninfo, kwargs={"autocommit": True}, min_size=2, max_size=in_flight, open=False)
    http = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=in_flight), timeout=aiohttp.ClientTimeout(total=15)
    )

    @app.task(name=TASK, queue="reminders", retry=RetryStrategy(max_attempts=8, exponential_wait=2))
    async def send_reminder(reminder_id: str, patient_id: str, appointment_id: str) -> None:
        async with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            row = await (await cursor.execute(_LOAD, (appointment_id,))).fetchone()
        state, gateway_id = "dropped", None
        if row is not None and wanted(row, row):
            body, headers = message(reminder_id, row, row), {"Idempotency-Key": reminder_id}
            async with http.post(f"{gateway}/sms", json=body, headers=headers) as answer:
                if answer.status >= 500:
                    answer.raise_for_status()
                state = "accepted" if answer.ok else "failed"
                gateway_id = (await answer.json()).get("id")
        async with pool.connection() as connection:
            await connection.execute(_KEEP, (reminder_id, state, gateway_id))

    async with app.open_async(), pool, http:
        await app.run_worker_async(
            queues=["reminders"],
            concurrency=in_flight,
            fetch_job_polling_interval=POLL_SECONDS,
            delete_jobs="successful",
        )


if __name__ == "__main__":
    environment = os.environ
    uvloop.run(
        work(
            environment["REMINDERS_POSTGRES"],
            environment["REMINDERS_GATEWAY"],
            int(environment["REMINDERS_IN_FLIGHT"]),
        )
    )

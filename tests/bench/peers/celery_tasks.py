"""Celery's worker: ``celery -A tests.bench.peers.celery_tasks worker``. One task sends one reminder."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import redis
import urllib3
from celery import Celery  # type: ignore[import-untyped]

from tests.bench.peers.text import message, wanted
from tests.bench.reminders_sides import FAR

URL = os.environ["REMINDERS_REDIS"]
GATEWAY = os.environ["REMINDERS_GATEWAY"]
IN_FLIGHT = int(os.environ["REMINDERS_IN_FLIGHT"])

app = Celery("reminders", broker=URL)
app.conf.update(
    task_ignore_result=True,  # "Ignore results you don't want" (user guide, Tasks)
    task_acks_late=True,  # for tasks that may run twice, as these may: the gateway deduplicates (FAQ)
    worker_prefetch_multiplier=64,  # "many short-running tasks: 64, or 128" (user guide, Optimizing)
    broker_pool_limit=IN_FLIGHT,  # "based on the number of active greenthreads" (the same)
    # Else every greenlet looks for a result backend anew, at two thirds of a task's cost (user guide, Configuration)
    result_backend_thread_safe=True,
    # "increase the visibility timeout to match the time of the longest ETA" (Using Redis, Caveats)
    broker_transport_options={"visibility_timeout": int(3 * FAR.total_seconds())},
    result_backend_transport_options={"visibility_timeout": int(3 * FAR.total_seconds())},
    visibility_timeout=int(3 * FAR.total_seconds()),
)
database = redis.Redis.from_url(URL, max_connections=2 * IN_FLIGHT)
http = urllib3.PoolManager(maxsize=IN_FLIGHT, block=True)


_AGAIN = {"autoretry_for": (urllib3.exceptions.HTTPError,), "retry_backoff": True, "max_retries": 8}


@app.task(name="send_reminder", **_AGAIN)  # type: ignore[untyped-decorator]
def send_reminder(reminder_id: str, patient_id: str, appointment_id: str) -> None:
    """Send one reminder, unless it is no longer wanted, and keep what became of it."""
    stored = database.mget(f"recipient:{patient_id}", f"visit:{appointment_id}")
    recipient, visit = (json.loads(each) if each else None for each in stored)
    if recipient is None or visit is None or not wanted(recipient, visit):
        outcome = {"state": "dropped"}
    else:
        answer = http.request(
            "POST",
            f"{GATEWAY}/sms",
            json=message(reminder_id, recipient, visit),
            headers={"Idempotency-Key": reminder_id},
            timeout=15.0,
            retries=False,
        )
        if answer.status >= 500:
            raise urllib3.exceptions.HTTPError(f"status {answer.status}")
        outcome = {"state": "accepted" if answer.status == 202 else "failed", "gateway_id": answer.json().get("id")}
    outcome["at"] = datetime.now(UTC).isoformat()
    database.set(f"outcome:{reminder_id}", json.dumps(outcome))

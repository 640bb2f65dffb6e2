"""One process serves all simulators, tells where, follows the shared clock, and goes when it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from smtplib import SMTP
from threading import Thread

import httpx
import jwt
import pytest

from shared.kit.clock import OffsetClock
from tests.unit.simulators.world import SUBMIT, Json, bundle

ROOT = Path(__file__).resolve().parents[3]
WAIT_SECONDS = 30


class Subscriber(ThreadingHTTPServer):
    """A service on a real port: puts what it is sent into a queue, so that tests wait for it by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: Queue[tuple[str, str, Json]] = Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Subscriber

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.end_headers()
        self.server.got.put((self.path, self.headers["Authorization"], body))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the test's output is its own."""


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    server = Subscriber()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


Started = tuple["subprocess.Popen[str]", Json]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> Started:
        command = [sys.executable, "-m", "deploy.simulators", "all", "--data", str(tmp_path / "data"), *arguments]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        addresses: Json = json.loads(process.stdout.readline())
        return process, addresses

    yield run
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_all_doors_answer_at_the_addresses_told_and_close_on_a_signal(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    process, addresses = start()
    assert json.loads((tmp_path / "data" / "simulators.json").read_text(encoding="utf-8")) == addresses
    for name in ("payer", "gateway", "issuer"):
        assert httpx.get(f"{addresses[name]}/health", trust_env=False).json() == {"status": "ok"}
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Message-ID"] = "clinic@example.test", "pat@example.test", "<1@carerelay.test>"
    mail.set_content("See you at 9")
    with SMTP(addresses["smtp"]["host"], addresses["smtp"]["port"], timeout=WAIT_SECONDS) as connection:
        connection.send_message(mail)
    ledger = httpx.get(f"{addresses['gateway']}/ledger", trust_env=False).json()
    assert ledger["keys"] == {"<1@carerelay.test>": 1}
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0
    assert not (tmp_path / "data" / "simulators.json").exists()


def test_what_is_pended_is_notified_as_soon_as_the_shared_clock_has_come_to_it(
    start: Callable[..., Started], subscriber: Subscriber, tmp_path: Path
) -> None:
    clock_file = tmp_path / "clock"
    notify = f"{subscriber.url}/payers/{{payer_id}}"
    process, addresses = start("--clock-file", str(clock_file), "--notify-url", notify)
    clock = OffsetClock(clock_file)
    answer = httpx.post(addresses["payer"] + SUBMIT, json=bundle("a1", "SBX-PEND-NOTIFY-1"), trust_env=False)
    assert answer.status_code == 200
    due = datetime.fromisoformat(httpx.get(f"{addresses['payer']}/next-due", trust_env=False).json()["at"])
    assert timedelta(hours=4, minutes=59) < due - datetime.now(UTC) <= timedelta(hours=5)
    clock.advance_to(due)
    path, authorization, body = subscriber.got.get(timeout=WAIT_SECONDS)
    assert path == "/payers/acme"
    assert body["entry"][1]["resource"]["entry"][0]["resource"]["preAuthRef"]
    claims = jwt.decode(authorization.removeprefix("Bearer "), options={"verify_signature": False})
    assert (claims["roles"], claims["iss"]) == (["service"], addresses["issuer"])
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 0

"""What goes into an image, and the two programs that every container runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import cache
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.docker import needs
from deploy.docker.roles import PROCESSES
from deploy.embedded.ports import LOOPBACK
from tests.conftest import ROOT

LOCK = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
DOCKER = ROOT / "deploy" / "docker"


@cache
def kept(service: str) -> frozenset[str]:
    """The distributions in a service's image."""
    return frozenset(lines.partition("==")[0] for lines in needs.needed(LOCK, needs.imported(ROOT, service)))


@pytest.mark.parametrize("service", PROCESSES)
def test_an_image_has_what_its_service_imports_and_what_that_needs(service: str) -> None:
    assert {"pymongo", "aiokafka", "fastapi", "uvloop"} <= kept(service)
    for name in kept(service):
        for line in requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                assert canonicalize_name(wanted.name) in kept(service), f"{name} needs {line}"


def test_what_only_others_import_stays_out() -> None:
    assert {"fpdf2", "fonttools", "pillow", "aiosmtplib"} <= kept("notifications")
    assert not {"fpdf2", "fonttools", "pillow", "aiosmtplib"} & kept("referrals")
    assert {"fhir-resources", "fhir-core"} <= kept("referrals")
    assert not {"fhir-resources", "fhir-core"} & kept("directory")


def test_every_line_of_the_lock_is_somebodys_and_keeps_its_hashes() -> None:
    everything = needs.needed(LOCK, set(needs.ONLY_SOME.values()))
    assert len(everything) == LOCK.count("==") - LOCK.count("=='") - LOCK.count('=="')
    assert all("--hash=sha256:" in lines and "# via" not in lines for lines in everything)


async def answering(status: str) -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        known = asked.startswith("GET /health/ready ")
        writer.write(f"HTTP/1.1 {status if known else '404 Not Found'}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    return server, server.sockets[0].getsockname()[1]


async def health(port: int, *path: str) -> int:
    command = [sys.executable, "-I", "-S", str(DOCKER / "health.py"), *path]
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "HTTP_PORT": str(port)}, stdout=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


async def test_health_is_what_the_own_port_answers() -> None:
    good, port = await answering("200 OK")
    bad, other = await answering("503 Service Unavailable")
    assert await health(port, "/health/ready") == 0
    assert await health(port, "/elsewhere") == 1
    assert await health(other, "/health/ready") == 1
    good.close()
    await good.wait_closed()
    assert await health(port, "/health/ready") == 1
    bad.close()


async def test_a_container_that_is_stopped_while_it_starts_is_gone_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import sys; print(*sys.argv, flush=True); sys.stdin.read()")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(DOCKER / "entry.py"), "a-role"),
        env={**os.environ, "CARERELAY_MODULE": "slow", "PYTHONPATH": str(tmp_path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).split()[1:] == [b"a-role"]
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 128 + signal.SIGTERM

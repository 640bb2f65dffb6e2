"""Processes under measurement: started on a leash, watched, stopped in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from deploy.embedded.supervision import LEASH

ROOT = Path(__file__).resolve().parents[2]

_STOP_SECONDS = 30.0


class Broke(RuntimeError):
    """A process under measurement ended by itself, or did not get where it should in time."""


class Child:
    """A running process; ``pid`` is its own, whatever started it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, output: IO[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._output = output

    def check(self) -> None:
        """Raise Broke, with the last lines it wrote, where it has ended."""
        if self._process.returncode is not None:
            raise Broke(f"{self.name} ended with {self._process.returncode}\n{self.last_lines()}")

    def last_lines(self, count: int = 20) -> str:
        """What it wrote last."""
        self._output.seek(0)
        return "\n".join(self._output.read().decode(errors="replace").splitlines()[-count:])

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL where that is not enough; returns when it is gone."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def child(module: str, *arguments: str, environment: Mapping[str, str]) -> AsyncIterator[Child]:
    """Run ``python -m module``; it goes with this process, however that ends. Output is kept for when it breaks."""
    with TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LEASH), sys.executable, "-m", module, *arguments),
            cwd=ROOT,
            env={**_inherited(), **environment, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
        running = Child(module, process, output)
        try:
            yield running
        finally:
            await running.stop()


def _inherited() -> dict[str, str]:
    """The environment without what would send local traffic to a proxy or change what is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {name: value for name, value in kept.items() if not name.startswith(("OTEL_", "PYTHON"))}


async def moment(at: float) -> None:
    """Return at a point in time of the loop's clock, at once where it has passed."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    timer = loop.call_at(at, reached.set_result, None)
    try:
        await reached
    finally:
        timer.cancel()

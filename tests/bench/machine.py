"""What this machine is and what its processes use, read from /proc; Linux only, as the benchmarks are."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children that were waited for. Raises OSError where it is gone."""
    stat = (_PROC / str(pid) / "stat").read_text()
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def memory_bytes(pid: int) -> int:
    """Resident memory of a process. Raises OSError where it is gone."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE


def family(pid: int) -> list[int]:
    """A process and its descendants, as they are now."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


class CpuClock:
    """CPU seconds of named processes since this was made."""

    def __init__(self, **pids: int | Iterable[int]) -> None:
        self._pids = {name: [pid] if isinstance(pid, int) else list(pid) for name, pid in pids.items()}
        self._at = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._pids.items()}

    def used(self) -> dict[str, float]:
        """Seconds by name."""
        return {name: now - self._at[name] for name, now in self._now().items()}


def load() -> float:
    """The load of the last minute."""
    return os.getloadavg()[0]


def machine() -> dict[str, str | int]:
    """What a reader must know about the machine; nothing that says whose it is."""
    lines = (_PROC / "cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_gib": round(memory / 2**30),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }

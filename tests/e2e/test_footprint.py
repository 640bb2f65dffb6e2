"""What the idle stack costs, and that it really goes away."""

from __future__ import annotations

import subprocess

import pytest

from deploy.embedded import Stack

pytestmark = pytest.mark.embedded

MEBIBYTE = 1024
"""In the unit of ``ps -o rss``, KiB."""

SERVICE_LIMIT = 150 * MEBIBYTE
STACK_LIMIT = 2048 * MEBIBYTE


def resident(pid: int) -> int:
    """KiB of memory that a process holds."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout)


def test_an_idle_service_with_all_its_roles_stays_under_150_mb_and_the_stack_under_2_gb(stack: Stack) -> None:
    held = {name: resident(process.pid) for name, process in stack.processes().items() if process.pid}
    assert set(held) == set(stack.names)
    assert {name: kib for name, kib in held.items() if name in stack.services and kib >= SERVICE_LIMIT} == {}
    assert sum(held.values()) < STACK_LIMIT, held

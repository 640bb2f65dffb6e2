"""Tests that share a broker, a store or a stack run on one worker, so that each is started once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GROUPED = """
import os
import pytest

@pytest.mark.xdist_group("a stack")
@pytest.mark.parametrize("n", range(8))
def test_it(n):
    with open("workers", "a") as seen:
        print(os.environ["PYTEST_XDIST_WORKER"], file=seen)
"""


def test_a_group_of_tests_is_one_workers(tmp_path: Path) -> None:
    """With pytest 9.2, pytest-xdist 3.8 shares a group out among all of them, and says nothing of it."""
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = (tmp_path / "workers").read_text().split()
    assert len(seen) == 8
    assert len(set(seen)) == 1

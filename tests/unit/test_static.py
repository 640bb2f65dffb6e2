"""Ruff, mypy --strict and the import rules, as tests: what they find fails the suite like anything else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "."], id="ruff"),
        pytest.param(["mypy", "--strict"], id="mypy"),  # services and shared, named in pyproject.toml
        pytest.param(["lint-imports", "--no-logo"], id="import-linter"),
    ],
)
def test_static_check_finds_nothing(command: list[str]) -> None:
    tool, *arguments = command
    found = subprocess.run([BIN / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr

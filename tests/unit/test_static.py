"""Ruff, mypy --strict and the import rules, as tests: what they find fails the suite like anything else."""

from __future__ import annotations

import shutil
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


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("shared/kit/decisions.py", "import services", "Deployment knows services"),
        ("shared/kit/document.py", "import deploy.embedded.stack", "Deployment knows services"),
        ("services/directory/api.py", "import services.intake", "never imports another service"),
        ("services/directory/api.py", "import pymongo", "MongoDB driver"),
        ("shared/kit/engine.py", "from bson import ObjectId", "MongoDB driver"),
        ("services/directory/jobs.py", "from faststream.kafka import KafkaBroker", "FastStream and aiokafka"),
        ("services/directory/model/places.py", "import shared.kit.store", "does I/O"),
    ],
)
def test_each_import_rule_finds_its_breach(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for name in ("services", "shared", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    found = subprocess.run(
        [BIN / "lint-imports", "--no-logo", "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, found.stderr
    broken = [shown for shown in found.stdout.splitlines() if shown.endswith("BROKEN")]
    assert any(contract in shown for shown in broken), found.stdout

"""Rules of this codebase that no linter knows, each a small reading of the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CLOCKS_AND_IDS = {
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "uuid.uuid1",
    "uuid.uuid4",
    "os.urandom",
}
CHANCE = ("random.", "secrets.")
MAY_READ_THE_CLOCK = {"shared/kit/clock.py"}
"""The one place from which time and fresh ids come; everything else is given them."""

MODEL_MAY_IMPORT = {
    "pydantic",
    "shared.contracts",
    "shared.kit.document",
    "shared.kit.decisions",
    "shared.kit.errors",
}
CONTRACTS_MAY_IMPORT = {"pydantic"}
"""And each other as neighbours (``from .base``): installed by itself the package has another name."""

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w")
ADDRESS = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host|\bfile:|^-i\b|\s@\s", re.MULTILINE)


def tracked(*patterns: str) -> list[Path]:
    """The files that git would commit, so that what lies about beside them does not count."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def full_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name of a module stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                (a.asname or a.name.split(".")[0]): (a.name if a.asname else a.name.split(".")[0]) for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
    return names


def used_names(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every dotted name in a module, spelled out in full, called or only handed on."""
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            if first in names:
                yield names[first] + dot + rest, node


def imported(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # ``from shared.kit import store`` imports shared.kit.store
            yield from ((f"{module}.{alias.name}" if module == "shared.kit" else module, node) for alias in node.names)


def within(module: str, allowed: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def beyond(path: Path, allowed: set[str]) -> list[str]:
    own = ".".join(path.relative_to(ROOT).parts[:3]).removesuffix(".py")  # a model package may import its own modules
    return [
        f"{where(path, node)} imports {module}"
        for module, node in imported(parse(path))
        if module.split(".")[0] not in sys.stdlib_module_names and not within(module, allowed | {own})
        if not (path.parent.name == "contracts" and re.fullmatch(r"\.\w*", module))
    ]


def test_time_ids_and_chance_come_from_the_kits_clock_alone() -> None:
    found = [
        f"{where(path, node)} {name}"
        for path in tracked("services/*.py", "shared/*.py")
        if path.relative_to(ROOT).as_posix() not in MAY_READ_THE_CLOCK
        for name, node in used_names(parse(path))
        if name in CLOCKS_AND_IDS or name.startswith(CHANCE)
    ]
    assert not found, "\n".join(found)


def test_models_import_only_the_pure_side() -> None:
    models = tracked("services/*/model.py", "services/*/model/*.py")
    found = [line for path in models for line in beyond(path, MODEL_MAY_IMPORT)]
    assert models
    assert not found, "\n".join(found)


def test_contracts_depend_on_pydantic_alone() -> None:
    contracts = tracked("shared/contracts/*.py")
    found = [line for path in contracts for line in beyond(path, CONTRACTS_MAY_IMPORT)]
    assert contracts
    assert not found, "\n".join(found)


def test_the_kit_knows_no_event_but_their_base() -> None:
    found = [
        f"{where(path, node)} imports {module}"
        for path in tracked("shared/kit/*.py")
        for module, node in imported(parse(path))
        if within(module, {"shared.contracts"}) and module != "shared.contracts.base"
    ]
    assert not found, "\n".join(found)


def test_no_test_sleeps() -> None:
    found = [
        where(path, node)
        for path in tracked("tests/*.py")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) == "sleep" or ast.unparse(node.func).endswith(".sleep"))
        and not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
    ]
    assert not found, "wait for a signal instead of some time:\n" + "\n".join(found)


def test_no_test_mocks() -> None:
    found = [
        where(path, node)
        for path in tracked("tests/*.py")
        for module, node in imported(parse(path))
        if module.startswith("unittest")
    ]
    assert not found, "a fake is a small class of ours:\n" + "\n".join(found)


def test_nothing_is_left_unfinished() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in tracked()
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".in", ".sh"} or path.name in {"Makefile", "run"}
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)} {match.group()}"
        for path in tracked()
        if path != Path(__file__)
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", tracked("requirements/*"), ids=lambda path: path.name)
def test_requirement_files_name_no_address(path: Path) -> None:
    assert not ADDRESS.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", tracked("requirements/*.txt"), ids=lambda path: path.name)
def test_every_locked_requirement_has_its_version_and_hashes(path: Path) -> None:
    logical = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    requirements = [line for line in logical if line.strip() and not line.lstrip().startswith("#")]
    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


def test_what_a_service_runs_on_is_locked_the_same_for_development() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
        return {line.removesuffix("\\").strip() for line in lines if re.match(r"\w", line)}

    assert pins("runtime.txt") <= pins("dev.txt")


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\ndatetime.now()",
        "import datetime as dt\ndt.datetime.utcnow()",
        "from time import time as now\nnow()",
        "import uuid\nfields(default_factory=uuid.uuid4)",
        "import random\nrandom.Random(1)",
        "from secrets import token_hex\ntoken_hex()",
    ],
)
def test_the_clock_rule_sees_through_every_way_to_import(source: str) -> None:
    names = [name for name, _ in used_names(ast.parse(source))]
    assert any(name in CLOCKS_AND_IDS or name.startswith(CHANCE) for name in names)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import pymongo.errors", "pymongo.errors"),
        ("from shared.kit import store", "shared.kit.store"),
        ("from shared.kit.store import Store", "shared.kit.store"),
        ("def late():\n    from httpx import get", "httpx"),
    ],
)
def test_the_import_rule_sees_every_way_to_import(source: str, module: str) -> None:
    assert [name for name, _ in imported(ast.parse(source))] == [module]
    assert not within(module, MODEL_MAY_IMPORT)


@pytest.mark.parametrize(
    "text", ["--index-url x", "-i x", "a @ file:///b", "--find-links x", "https://x/y.whl", "a==1 @ b"]
)
def test_the_address_rule_sees_every_way_to_name_one(text: str) -> None:
    assert ADDRESS.search(f"anyio==4.16.0\n{text}\n")

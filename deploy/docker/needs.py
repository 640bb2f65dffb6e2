"""``python needs.py SERVICE LOCK``: the lines of a lock that one service needs, for an image that holds no others.

What only some services import is looked for in the service's own modules and in the shared ones that those import;
what only such a package asked for (the lock's ``# via`` lines say so) goes with it. All else is every service's.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ONLY_SOME = {
    "aiosmtplib": "aiosmtplib",
    "fhir-resources": "fhir",
    "fpdf2": "fpdf",
    "standardwebhooks": "standardwebhooks",
}
"""Distributions that not every service imports, by what they are imported as."""

_PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==")


def imported(root: Path, service: str) -> set[str]:
    """The top-level names from elsewhere that a service's modules import, also late, also through shared modules."""
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = sorted((root / "services" / service).rglob("*.py"))
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in _modules(path):
            first = module.partition(".")[0]
            if first == "shared":
                waiting += _files(root, module)
            elif first != "services":
                found.add(first)
    return found


def _modules(path: Path) -> Iterator[str]:
    """Every module that a file may import; of ``from a.b import c`` both ``a.b`` and ``a.b.c``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(root: Path, module: str) -> list[Path]:
    """The files of a shared module, those of the packages around it among them."""
    parts = module.split(".")
    files = [root.joinpath(*parts[:n]) / "__init__.py" for n in range(1, len(parts) + 1)]
    return [path for path in (*files, root.joinpath(*parts).with_suffix(".py")) if path.is_file()]


def entries(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The lock's requirements by name: the lines that pin one with its hashes, and what asked for it."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", lock):
        if (pinned := _PINNED.match(block)) is None:
            continue
        asked = re.findall(r"^ +# (?:via )? *([\w.-]+(?: [\w.-]+)?)$", block, re.MULTILINE)
        lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
        found[pinned.group(1)] = ("\n".join(lines), frozenset(asked) - {"via"})
    return found


def needed(lock: str, imports: set[str]) -> list[str]:
    """The pinned lines that a process needs which imports these."""
    known = entries(lock)
    left_out = {name for name, module in ONLY_SOME.items() if name in known and module not in imports}
    while True:
        more = {name for name, (_, asked) in known.items() if asked and asked <= left_out} - left_out
        if not more:
            return [lines for name, (lines, _) in known.items() if name not in left_out]
        left_out |= more


def main() -> None:
    """Print them."""
    service, lock = sys.argv[1:]
    print("\n".join(needed(Path(lock).read_text(encoding="utf-8"), imported(Path.cwd(), service))))


if __name__ == "__main__":
    main()

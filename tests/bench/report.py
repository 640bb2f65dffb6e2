"""docs/benchmarks.md: what stands between its markers is made anew from the results; the prose around it stays."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from tests.bench.frame import SCENARIOS, TARGETS
from tests.bench.show import RESULTS, shown

DOCS = Path(__file__).resolve().parents[2] / "docs"

_PLOTS = "benchmarks"
_MARKED = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


class NothingMeasured(RuntimeError):
    """There are no results to report."""


def render(results: Path = RESULTS, docs: Path = DOCS) -> Path:
    """Put the newest results into docs/benchmarks.md and their plots beside it; returns the page.

    A place is ``<!-- measured: NAME -->`` to ``<!-- end -->``, NAME being a scenario or ``summary``. Scenarios without
    results keep what stands there. Raises NothingMeasured where there are none at all.
    """
    found = {name: json.loads(file.read_text()) for name in SCENARIOS if (file := results / f"{name}.json").is_file()}
    if not found:
        raise NothingMeasured(f"there is nothing in {results.name}; run `make bench` first")
    page = docs / "benchmarks.md"
    (docs / _PLOTS).mkdir(exist_ok=True)
    for name in found:
        shutil.copyfile(results / f"{name}.png", docs / _PLOTS / f"{name}.png")

    def filled(place: re.Match[str]) -> str:
        opening, name, end = place.groups()
        if name == "summary":
            return f"{opening}{_summary(found)}\n{end}"
        return f"{opening}{_scenario(name, found[name])}\n{end}" if name in found else place.group()

    page.write_text(_MARKED.sub(filled, page.read_text()))
    return page


def _summary(found: dict[str, dict[str, Any]]) -> str:
    measured = {key: value for result in found.values() for key, value in result["ratios"].items()}
    rows = ["| measure | target | measured | |", "|---|---|---:|---|"]
    for key, target in TARGETS.items():
        if key not in measured:
            rows.append(f"| {target.says} | {target} | | not measured |")
        else:
            verdict = "met" if target.met(measured[key]) else "missed"
            rows.append(f"| {target.says} | {target} | {shown(measured[key])} | {verdict} |")
    return "\n".join(rows)


def _scenario(name: str, result: dict[str, Any]) -> str:
    rows = ["| measure | median | least | greatest | runs | unit |", "|---|---:|---:|---:|---:|---|"]
    for measure in result["measures"]:
        figures = " | ".join(shown(measure[part]) for part in ("median", "low", "high"))
        rows.append(f"| {measure['name']} | {figures} | {len(measure['runs'])} | {measure['unit']} |")
    machine = result["machine"]
    where = (
        f"{result['at'][:10]}{', a quick run' if result['quick'] else ''}, {result['stack']} stack, "
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, {machine['kernel']}, "
        f"Python {machine['python']}; load {result['load_before']} before, {result['load_after']} after."
    )
    notes = [f"- {note}" for note in result["notes"]]
    plot = f"![{name.replace('_', ' ')}]({_PLOTS}/{name}.png)"
    return "\n".join([*rows, "", where, "", *notes, *([""] if notes else []), plot])

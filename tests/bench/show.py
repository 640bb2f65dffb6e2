"""What becomes of an outcome: a table, a JSON file, a plot, and its keys in the summary."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tests.bench.frame import TARGETS, Measure, Outcome
from tests.bench.machine import machine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parents[2] / "build" / "bench"
"""Where results go; not under version control."""

_BAR, _RANGE = "#4c78a8", "#222222"


def shown(value: float) -> str:
    """A figure with three digits that mean something, and no more."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def as_json(outcome: Outcome, *, quick: bool, stack: str, load: tuple[float, float]) -> dict[str, Any]:
    """An outcome as it is written: measures with every run, ratios, notes, and where and when it was measured.

    ``load`` is the machine's load before and after.
    """
    measures = [
        {"name": m.name, "unit": m.unit, "median": m.median, "low": m.low, "high": m.high, "runs": list(m.runs)}
        for m in outcome.measures
    ]
    return {
        "scenario": outcome.scenario,
        "quick": quick,
        "stack": stack,
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "load_before": round(load[0], 2),
        "load_after": round(load[1], 2),
        "measures": measures,
        "ratios": dict(outcome.ratios),
        "notes": list(outcome.notes),
    }


def write(outcome: Outcome, written: dict[str, Any], folder: Path = RESULTS) -> None:
    """Write ``<scenario>.json`` and ``<scenario>.png``, and put the ratios into ``summary.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / f"{outcome.scenario}.json", written)
    summary_file = folder / "summary.json"
    summary = json.loads(summary_file.read_text()) if summary_file.is_file() else {}
    summary |= dict(outcome.ratios)
    replace(summary_file, {key: summary[key] for key in TARGETS if key in summary})
    from matplotlib.figure import Figure  # here, so that tables and reports need no plotting library

    figure = Figure(figsize=(9, 5), layout="constrained")
    (outcome.draw or (lambda empty: bars(empty, outcome)))(figure)
    figure.savefig(folder / f"{outcome.scenario}.png", dpi=120)


def replace(file: Path, content: dict[str, Any]) -> None:
    """Write whole or not at all: an interrupted run leaves the last results."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(new, file)


def bars(figure: Figure, outcome: Outcome) -> None:
    """A panel for each unit: the median of each measure as a bar, its runs as dots, its range as a line."""
    units = list(dict.fromkeys(measure.unit for measure in outcome.measures))
    groups = [[m for m in outcome.measures if m.unit == unit] for unit in units]
    panels = figure.subplots(len(units), 1, squeeze=False, height_ratios=[len(group) for group in groups])
    for axes, unit, group in zip(panels[:, 0], units, groups, strict=True):
        _panel(axes, unit, group)
    figure.suptitle(outcome.scenario.replace("_", " "))


def _panel(axes: Any, unit: str, group: list[Measure]) -> None:
    places = range(len(group))
    axes.barh(places, [m.median for m in group], color=_BAR, height=0.6)
    axes.hlines(places, [m.low for m in group], [m.high for m in group], color=_RANGE, linewidth=1)
    for place, measure in zip(places, group, strict=True):
        axes.plot(measure.runs, [place] * len(measure.runs), "o", color=_RANGE, markersize=3)
    axes.set_yticks(list(places), [m.name for m in group])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.set_xlim(left=0)


def table(outcome: Outcome, console: Console) -> None:
    """Print what was measured, and how it stands to its targets."""
    measured = Table(title=outcome.scenario, title_justify="left")
    measured.add_column("measure")
    for name in ("median", "least", "greatest", "runs"):
        measured.add_column(name, justify="right")
    measured.add_column("unit")
    for measure in outcome.measures:
        figures = [shown(value) for value in (measure.median, measure.low, measure.high)]
        measured.add_row(measure.name, *figures, str(len(measure.runs)), measure.unit)
    console.print(measured)
    for key, value in outcome.ratios.items():
        target = TARGETS[key]
        verdict = "[green]met[/green]" if target.met(value) else "[yellow]missed[/yellow]"
        console.print(f"  {target.says}: [bold]{shown(value)}[/bold] (target {target}): {verdict}", highlight=False)
    for note in outcome.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    console.print()

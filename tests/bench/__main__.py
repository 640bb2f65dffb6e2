"""``python -m tests.bench [SCENARIO ...] [--quick] [--stack native|embedded]``, or ``--report``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
import time
import traceback
from typing import cast

from rich.console import Console

from tests.bench import report, show
from tests.bench.frame import SCENARIOS, Ground, Scenario
from tests.bench.machine import load


def main() -> int:
    """Run the scenarios; 1 where one of them broke. A missed target is a result, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure; see tests/bench/README.md.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="every scenario small")
    parser.add_argument("--stack", choices=["native", "embedded"], default=os.environ.get("STACK") or "native")
    parser.add_argument("--report", action="store_true", help="make docs/benchmarks.md anew from the last results")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    console = Console()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # of leaders not yet elected, groups not yet formed
    if given.report:
        try:
            console.print(f"written: {report.render().name}")
        except report.NothingMeasured as nothing:
            parser.error(str(nothing))
        return 0
    ground = Ground.of(given.stack, quick=given.quick)
    failed = [name for name in given.scenarios or SCENARIOS if not _run(name, ground, given.stack, console)]
    if failed:
        console.print(f"broke: {', '.join(failed)}", style="red")
    console.print(f"results are in {os.path.relpath(show.RESULTS)}")
    return 1 if failed else 0


def _run(name: str, ground: Ground, stack: str, console: Console) -> bool:
    """Measure, show and write one scenario; False, with what happened, where it broke."""
    console.print(f"[bold]{name}[/bold]", highlight=False)
    before, began = load(), time.monotonic()
    try:
        scenario = cast(Scenario, importlib.import_module(SCENARIOS[name]))
        outcome = asyncio.run(scenario.measure(ground))
    except Exception:
        traceback.print_exc()
        return False
    show.table(outcome, console)
    show.write(outcome, show.as_json(outcome, quick=ground.quick, stack=stack, load=(before, load())))
    console.print(f"  {time.monotonic() - began:.0f} s", style="dim", highlight=False)
    return True


if __name__ == "__main__":
    sys.exit(main())

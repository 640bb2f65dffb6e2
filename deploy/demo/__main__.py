"""``python -m deploy.demo [--bundles DIR]``: starts the embedded stack, plays patients through it, shows what happened.

Exits with 0 if and only if every referral ended as expected.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console

from deploy.demo import show, traces
from deploy.demo.api import Api, NoAnswer, Refusal
from deploy.demo.cases import DEFAULT_FOLDER, Case, UnusableScenario, load
from deploy.demo.conductor import Conductor, Restless
from deploy.demo.player import Line, Story, play_all
from deploy.demo.world import furnish
from deploy.embedded.stack import ROOT, Stack, StackError
from shared.kit.clock import OffsetClock

# Moving the clock wakes the workers at once, so they need not look often by themselves.
_ENVIRONMENT = {"POLL_SECONDS": "1", "LOG_LEVEL": "WARNING"}
_DATA = ROOT / ".data" / "demo"
_WIDTH = 120
_SHOWN = "05-denied-then-overturned"
"""The case whose trace is shown, where it is among those played; else the longest trace is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code says whether all referrals ended as expected."""
    options = _options(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cases = load(options.bundles)
        if not cases:
            console.print(f"there are no bundles (*.json) in {options.bundles}")
            return 2
        console.print("starting broker, store, payer, gateways and six services ...")
        with Stack(options.data, environment=_ENVIRONMENT) as stack:
            stories = asyncio.run(_play(stack, cases, console))
        _show_trace(stories, traces.read(stack.traces), console)
    except (UnusableScenario, StackError, Restless, NoAnswer, Refusal) as error:
        console.print(f"[bold red]the demo stopped:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return _verdict(stories, console)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--bundles", type=Path, default=DEFAULT_FOLDER, help="a folder of FHIR R4 bundles (*.json)")
    parser.add_argument("--data", type=Path, default=_DATA, help="where the stack writes; logs stay until the next run")
    return parser.parse_args(arguments)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does, so that the stack is stopped."""
    raise KeyboardInterrupt


async def _play(stack: Stack, cases: Sequence[Case], console: Console) -> list[Story]:
    clock = OffsetClock(stack.clock_offset_file)
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        api = Api(stack.addresses, stack.token, http)
        conductor = Conductor(api, clock)
        await furnish(api, clock.now(), "demo")
        with show.Progress(console) as progress:
            stories = await play_all(cases, api, conductor, told=progress)
        for story in stories:
            console.print(show.refused(story) if story.flaws else show.timeline(story, await story.timeline()))
        return stories


def _show_trace(stories: Sequence[Story], spans: list[traces.Span], console: Console) -> None:
    lines = [line for story in stories for line in story.lines if line.referral_id]
    wanted = [line for line in lines if line.case == _SHOWN] or lines
    found = [(line.title, traces.of_case(spans, line.referral_id)) for line in wanted]
    title, longest = max(found, key=lambda one: len(one[1]), default=("", []))
    if longest:
        console.print(show.trace(title, longest))


def _verdict(stories: Sequence[Story], console: Console) -> int:
    lines: list[Line] = [line for story in stories for line in story.lines]
    for fault in show.faults(lines):
        console.print(fault)
    good = sum(line.as_expected for line in lines)
    console.print(f"{good} of {len(lines)} referrals ended as expected", highlight=False)
    return 0 if lines and good == len(lines) else 1


if __name__ == "__main__":
    sys.exit(main())

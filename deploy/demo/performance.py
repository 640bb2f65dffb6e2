"""The demo on a stage that stands: patients are played through it, then what happened to each is shown.

Others set the stage: ``deploy.demo`` starts an embedded stack, ``deploy.docker.demo`` finds containers.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console

from deploy.demo import show, traces
from deploy.demo.api import Api, NoAnswer, Refusal
from deploy.demo.cases import DEFAULT_FOLDER, Case, UnusableScenario, load
from deploy.demo.conductor import ONE_EACH, Conductor, Restless
from deploy.demo.player import Line, Story, play_all
from deploy.demo.world import CLINIC_DAYS, furnish
from shared.kit.clock import OffsetClock

_WIDTH = 120
_SHOWN = "05-denied-then-overturned"
"""The case whose trace is shown, where it is among those played; else the longest trace is."""


class NoStage(Exception):
    """There is nothing to play on; says why."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running stack.

    ``urls`` are the base URLs of services and simulators, ``token`` mints one for a role, ``clock_file`` is the shared
    offset of domain time, ``processes`` names each service's among the URLs, ``traces`` is where spans are written.
    ``run`` is 0 on a stage where nobody has played yet; with another number for each run the patients are others, and
    come when the earlier ones' appointments are over. ``patience`` is how many real seconds something may be in flight.
    """

    urls: Mapping[str, str]
    token: Callable[[str], str]
    clock_file: Path
    processes: Mapping[str, Sequence[str]] = field(default_factory=lambda: ONE_EACH)
    traces: Path | None = None
    run: int = 0
    patience: float = 45.0


def arguments(prog: str, description: str | None) -> argparse.ArgumentParser:
    """What every demo may be told."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--bundles", type=Path, default=DEFAULT_FOLDER, help="a folder of FHIR R4 bundles (*.json)")
    return parser


def perform(stage: Callable[[Console], AbstractContextManager[Stage]], bundles: Path) -> int:
    """Play the cases of a folder; the exit code says whether all referrals ended as expected.

    ``stage`` is entered for as long as they play, and may raise NoStage.
    """
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cases = load(bundles)
        if not cases:
            console.print(f"there are no bundles (*.json) in {bundles}")
            return 2
        with stage(console) as standing:
            stories = asyncio.run(_play(standing, cases, console))
        if standing.traces is not None:
            _show_trace(stories, traces.read(standing.traces), console)
    except (UnusableScenario, NoStage, Restless, NoAnswer, Refusal) as error:
        console.print(f"[bold red]the demo stopped:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return _verdict(stories, console)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does, so that the stage is cleared."""
    raise KeyboardInterrupt


async def _play(stage: Stage, cases: Sequence[Case], console: Console) -> list[Story]:
    clock = OffsetClock(stage.clock_file)
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        api = Api(stage.urls, stage.token, http, patience=stage.patience)
        conductor = Conductor(api, clock, patience=stage.patience, processes=stage.processes)
        if stage.run:
            cases = [case.copy(stage.run) for case in cases]
            clock.advance_to(clock.now() + timedelta(days=CLINIC_DAYS[-1] + 1))
            await conductor.settle()
        await furnish(api, clock.now(), f"demo-{stage.run}")
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

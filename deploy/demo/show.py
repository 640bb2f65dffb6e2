"""What the demo shows: a live table of the referrals, each patient's timeline, one referral's trace as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from deploy.demo import traces
from deploy.demo.player import Line, Moment, Story

_SPAN_LINES = 120


class Progress:
    """The referrals as they stand. In a terminal a table that redraws itself; else a line for each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._told: dict[str, str] = {}

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, stories: Sequence[Story], now: datetime) -> None:
        """Show how the stories stand at a domain time."""
        if self._live is not None:
            self._live.update(table(stories, now), refresh=True)
            return
        for story in stories:
            for key, text in _changes(story):
                if self._told.get(key) != text:
                    self._told[key] = text
                    self._console.print(f"{now:%d %b %H:%M}  {text}", highlight=False, soft_wrap=True)


def _changes(story: Story) -> Iterable[tuple[str, str]]:
    if story.flaws:
        yield story.case.name, f"{story.case.title}: refused"
    for number, line in enumerate(story.lines):
        yield f"{story.case.name}/{number}", f"{line.title}: {_standing(line)}"


def _standing(line: Line) -> str:
    return line.state + (f" ({line.reason})" if line.reason else "")


def table(stories: Sequence[Story], now: datetime) -> Table:
    """One row for each referral, and one for each bundle that was refused."""
    shown = Table(title=f"CareRelay on {now:%A, %d %B %Y, %H:%M} UTC", title_justify="left", expand=True)
    for name in ("patient", "registration", "referral", "why", "until", ""):
        shown.add_column(name, overflow="fold")
    for story in stories:
        if not story.lines:
            shown.add_row(story.case.title, story.registration, "", "", "", "[red]refused" if story.flaws else "")
        for line in story.lines:
            until = f"{datetime.fromisoformat(line.deadline):%d %b %H:%M}" if line.deadline else ""
            shown.add_row(line.title, story.registration, line.state, line.reason or "", until, _mark(line))
    return shown


def _mark(line: Line) -> Text:
    if not line.ended:
        return Text("…", style="dim")
    return Text("as expected", style="green") if line.as_expected else Text("NOT AS EXPECTED", style="bold red")


def refused(story: Story) -> Panel:
    """What is wrong with a bundle that could not be used, and where."""
    lines = [Text.assemble((flaw.path or "the bundle", "bold"), f"  {flaw.reason}") for flaw in story.flaws]
    return Panel(Group(*lines), title=f"{story.case.title}: refused", title_align="left", border_style="red")


def timeline(story: Story, moments: Sequence[Moment]) -> Panel:
    """What happened to one patient, oldest first."""
    shown = Table.grid(padding=(0, 2))
    for moment in moments:
        shown.add_row(f"{moment.at:%d %b %H:%M}", moment.what, Text(moment.detail, style="dim"))
    about = story.case.scenario.shows if story.case.scenario else ""
    parts = [Text(about, style="italic"), shown] if about else [shown]
    return Panel(Group(*parts), title=story.case.title, title_align="left")


def trace(title: str, spans: Sequence[traces.Span]) -> Tree:
    """A case's trace across the services. Very long ones are cut, and say so."""
    roots = traces.tree(spans)
    names = traces.services(spans)
    shown = Tree(f"[bold]{title}[/]: one trace, {len(spans)} spans, {len(names)} services ({', '.join(names)})")
    left = _SPAN_LINES
    for root in roots:
        left = _branch(shown, root, left)
    if left <= 0:
        shown.add(Text("and more", style="dim"))
    return shown


def _branch(tree: Tree, span: traces.Span, left: int) -> int:
    if left <= 0:
        return left
    label = Text.assemble((span.service, "cyan"), f"  {span.name}", (f"  {span.milliseconds:.1f} ms", "dim"))
    if span.times > 1:
        label.append(f"  × {span.times}", style="dim")
    if span.error:
        label.append("  failed", style="red")
    branch = tree.add(label)
    left -= 1
    for child in span.children:
        left = _branch(branch, child, left)
    return left


def faults(lines: Iterable[Line]) -> Iterable[Text]:
    """What was not as expected."""
    for line in lines:
        for fault in line.faults:
            yield Text.assemble((line.title, "bold red"), f": {fault}")

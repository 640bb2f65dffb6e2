"""What carectl shows a person; the same answers as JSON are for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.carectl.spans import Episode
from deploy.demo.traces import Span

Json = dict[str, Any]

_GOOD, _WARN, _BAD = "green", "yellow", "bold red"
_LATE, _VERY_LATE = 5.0, 60.0
_BAR = 40
_MOST_SPANS = 200


def _table(*columns: str, title: str | None = None) -> Table:
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        numeric = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if numeric else "left", overflow="fold")
    return made


def short(id: str | None) -> str:
    """The beginning of an id, enough to tell it from its neighbours."""
    return (id or "")[:8]


def lasting(seconds: float | None) -> str:
    """A length of time as somebody would say it."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} d"


def _late(seconds: float | None) -> Text:
    style = "dim" if not seconds else _GOOD if seconds < _LATE else _WARN if seconds < _VERY_LATE else _BAD
    return Text(lasting(seconds), style=style)


def _count(number: int | None, style: str = _WARN) -> Text:
    return Text("?" if number is None else f"{number:,}", style=style if number else "dim")


def _time(text: str | None) -> str:
    return "" if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}"


# -- status ------------------------------------------------------------------------------------------------------------


def status(services: Sequence[Json], unreachable: Mapping[str, str]) -> RenderableType:
    """All services at a glance: a line each, and below what is wrong and what was ordered."""
    shown = _table("service", "", "processes", ">lag", ">records", ">outbox", ">overdue", ">parked", "paused")
    for each in services:
        groups, queues = each["groups"], each["queues"]
        shown.add_row(
            Text(each["service"], style="bold"),
            Text("!", style=_BAD) if each["problems"] else Text("ok", style=_GOOD),
            _roles(each["processes"]),
            _late(max((group["seconds"] or 0.0 for group in groups), default=0.0)),
            _count(sum(group["records"] or 0 for group in groups)),
            _late(each["outbox"]["oldest_seconds"]),
            _late(max((queue["overdue_seconds"] for queue in queues), default=0.0)),
            _count(each["parked"], _BAD),
            Text(", ".join(paused["name"] for paused in each["paused"]), style=_WARN),
        )
    for name, why in unreachable.items():
        shown.add_row(Text(name, style="bold"), Text("!", style=_BAD), Text(why.partition(": ")[2], style=_BAD))
    return Group(shown, *_said(services))


def _roles(processes: Iterable[Json]) -> Text:
    """How many processes of each role run, and which are missed."""
    running: dict[str, int] = {}
    silent: dict[str, int] = {}
    for process in processes:
        counted = {"running": running, "silent": silent}.get(process["life"])
        if counted is not None:
            counted[process["role"]] = counted.get(process["role"], 0) + 1
    parts = [Text(role if count == 1 else f"{role} x{count}") for role, count in sorted(running.items())]
    parts += [Text(f"{role} x{count} silent", style=_BAD) for role, count in sorted(silent.items())]
    return Text(", ").join(parts) if parts else Text("none", style=_BAD)


def _said(services: Iterable[Json]) -> Iterable[Text]:
    for each in services:
        for problem in each["problems"]:
            yield Text.assemble(("! ", _BAD), (f"{each['service']} ", "bold"), _line(problem))
    for each in services:
        for notice in each["notices"]:
            yield Text.assemble(("- ", _WARN), (f"{each['service']} ", "bold"), _line(notice))


def _line(said: Json) -> Text:
    return Text.assemble((f"{said['code']} ", _WARN), f"{said['subject']}: {said['detail']}")


def service(each: Json) -> RenderableType:
    """One service whole: its processes, groups, queues, and whom it calls."""
    processes = _table("process", "role", "life", "host", ">pid", "since", "seen", "lacks", ">busy", title="processes")
    for process in each["processes"]:
        style = {"running": _GOOD, "silent": _BAD}.get(process["life"], "dim")
        processes.add_row(
            short(process["name"]),
            process["role"],
            Text(process["life"], style=style),
            process["host"],
            str(process["pid"]),
            _time(process["since"]),
            _time(process["seen"]),
            Text(", ".join(process["missing"]), style=_BAD),
            str(process["busy"]),
        )
    queues = _table("queue", ">workers", ">free slots", ">overdue", title="due work")
    for queue in each["queues"]:
        queues.add_row(
            queue["queue"], str(queue["workers"]), _count(queue["free_slots"]), _late(queue["overdue_seconds"])
        )
    parts: list[RenderableType] = [status([each], {}), processes, lag(each["groups"], title="groups"), queues]
    if each["callees"]:
        parts.append(_callees(each["callees"]))
    return Group(*parts)


def _callees(callees: Iterable[Json]) -> Table:
    shown = _table("called", "by queue", "process", "breaker", ">budget", ">in flight", title="who is called")
    for each in callees:
        style = {"closed": _GOOD, "open": _BAD}.get(each["breaker"], _WARN)
        shown.add_row(
            each["whom"],
            each["queue"],
            short(each["process"]),
            Text(each["breaker"], style=style),
            f"{each['budget']:.1f}",
            str(each["in_flight"]),
        )
    return shown


def lag(groups: Iterable[Json], title: str | None = None) -> Table:
    """How far each group is behind."""
    shown = _table("group", "topic", ">readers", ">records", ">oldest", title=title)
    for each in groups:
        readers = Text(str(each["readers"]), style="" if each["readers"] else _BAD)
        shown.add_row(each["group"], each["topic"], readers, _count(each["records"]), _late(each["seconds"]))
    return shown


def outbox(lines: Iterable[Json]) -> Table:
    """What Kafka does not have yet."""
    shown = _table("service", "document", ">documents", ">oldest")
    for each in lines:
        shown.add_row(each["service"], each["document"], _count(each["documents"]), _late(each["oldest_seconds"]))
    return shown


def slots(queues: Iterable[Json]) -> RenderableType:
    """Who has which slots: a line a worker, and the slots in which something waits longest."""
    shown = _table("queue", "worker", "role", ">slots", "which", ">epochs", "oldest due")
    for queue in queues:
        of: dict[str | None, list[Json]] = {}
        for slot in queue["slots"]:
            of.setdefault(slot["owner"], []).append(slot)
        roles = {worker["worker"]: worker["role"] for worker in queue["workers"]}
        for owner, held in sorted(of.items(), key=lambda each: each[0] or ""):
            epochs = [slot["epoch"] for slot in held]
            due = min((slot["oldest_due"] for slot in held if slot["oldest_due"]), default=None)
            shown.add_row(
                queue["queue"],
                Text(short(owner)) if owner else Text("nobody", style=_BAD),
                roles.get(owner or "", "") or "",
                str(len(held)),
                ranges(slot["slot"] for slot in held),
                f"{min(epochs)}" if min(epochs) == max(epochs) else f"{min(epochs)}-{max(epochs)}",
                _time(due),
            )
    return shown


def ranges(numbers: Iterable[int]) -> str:
    """``0-4, 7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    told = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(told[:6]) + (f" and {len(told) - 6} more" if len(told) > 6 else "")


# -- what is parked ----------------------------------------------------------------------------------------------------


def parked(keys: Iterable[Json]) -> Table:
    """Keys that wait, those that wait longest first."""
    shown = _table("id", "group", "state", ">events", "since", "type", "reason")
    for key in keys:
        shown.add_row(
            key["id"],
            key["group"],
            Text(key["state"], style=_WARN if key["state"] == "replaying" else _BAD),
            str(key["events"]),
            _time(key["since"]),
            key["type"] or "",
            key["reason"] or "",
        )
    return shown


def parked_key(key: Json) -> RenderableType:
    """One key: what waits and why, and what was given up."""
    about = Table.grid(padding=(0, 2))
    for name in ("id", "service", "group", "key", "state", "since", "reason"):
        about.add_row(Text(name, style="dim"), Text(str(key.get(name) or "")))
    entries = _table("place", "type", ">sequence", ">bytes", "at", "reason", title="waiting, in order")
    for number, entry in enumerate(key["entries"]):
        entries.add_row(
            entry["place"],
            entry["type"] or "",
            entry["sequence"] or "",
            str(entry["bytes"]),
            _time(entry["at"]),
            Text(entry["reason"], style=_BAD if number == 0 else "dim"),
        )
    discarded = _table("place", "by", "at", "reason", title="given up")
    for entry in key["discarded"]:
        discarded.add_row(entry["place"], entry["by"], _time(entry["at"]), entry["reason"])
    return Group(about, entries, *([discarded] if key["discarded"] else []))


def done(keys: Iterable[Json], dry_run: bool, what: str) -> Table:
    """What was done to each key, or would be."""
    shown = _table("id", "group", ">events", "first", what)
    for key in keys:
        if key["refused"]:
            outcome = Text(f"refused: {key['refused']}", style=_BAD)
        else:
            outcome = Text("would be" if dry_run else f"done, {key['state']}", style=_WARN if dry_run else _GOOD)
        shown.add_row(key["id"], key.get("group", ""), str(key.get("events", "")), key.get("first") or "", outcome)
    return shown


# -- orders ------------------------------------------------------------------------------------------------------------


def paused(changes: Iterable[Json]) -> Table:
    """Who is paused."""
    shown = _table("service", "kind", "name", "state", ">waiting", "since", "by")
    for each in changes:
        style = _WARN if each["state"] == "paused" else _GOOD
        shown.add_row(
            each["service"],
            each["kind"],
            each["name"],
            Text(each["state"], style=style),
            _count(each["waiting"]),
            _time(each.get("at")),
            each.get("by") or "",
        )
    return shown


def topics(lines: Iterable[Json]) -> Table:
    """Topics as the broker has them."""
    shown = _table("topic", "services", ">partitions", ">replication", "")
    for each in lines:
        problem = each["problem"]
        shown.add_row(
            each["topic"],
            ", ".join(each["services"]),
            str(each["partitions"] or ""),
            str(each["replication"] or ""),
            Text(problem, style=_BAD) if problem else Text("ok", style=_GOOD),
        )
    return shown


def going_back(order: Json) -> RenderableType:
    """What a group reads again."""
    shown = _table("topic", ">partition", ">from", ">back to", ">records")
    for each in order["partitions"]:
        records = each["from"] - each["to"]
        if records:
            shown.add_row(each["topic"], str(each["partition"]), str(each["from"]), str(each["to"]), f"{records:,}")
    verb = "would read" if order["dry_run"] else "reads"
    line = Text(f"{order['group']} {verb} {order['records']:,} records again, from {_time(order['since'])} UTC on")
    return Group(line, shown) if order["records"] else line


# -- cases -------------------------------------------------------------------------------------------------------------


def story(told: Json) -> RenderableType:
    """A patient's way through the services: what happened, and how it stands."""
    happened = _table("", "service", "event", "document", "", title="what happened (UTC)")
    day = ""
    for event in told["events"]:
        at = datetime.fromisoformat(event["at"])
        new = f"{at:%a %d %b %Y}"
        if new != day:
            happened.add_row(Text(new, style="bold"))
            day = new
        codes = ", ".join(f"{name} {value}" for name, value in event["codes"].items())
        happened.add_row(
            f"  {at:%H:%M:%S}",
            Text(event["service"], style=color(event["service"])),
            event["type"],
            Text(short(event["document"]), style="dim"),
            Text(codes, style="dim"),
        )
    stands = _table("service", "document", "id", "state", "waits for", "next", title="how it stands")
    for each in told["documents"]:
        wait = each["wait"]
        nearest = min(each["timers"].items(), key=lambda timer: timer[1], default=None)
        stands.add_row(
            Text(each["service"], style=color(each["service"])),
            each["document"],
            Text(each["id"], style="dim"),
            each["state"] or "",
            "" if wait is None else f"{wait['owner']}: {wait['reason']}, until {_time(wait['deadline'])}",
            "" if nearest is None else f"{nearest[0]} {_time(nearest[1])}",
        )
    parts: list[RenderableType] = [happened, stands]
    if not told["complete"]:
        parts.append(Text("a topic could not be read to its end: there may be more", style=_WARN))
    return Group(*parts)


_COLORS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")


def color(service: str) -> str:
    """A service's color, the same on every screen."""
    return _COLORS[sum(service.encode()) % len(_COLORS)]


def waterfall(title: str, found: Sequence[Episode], console: Console) -> RenderableType:
    """A trace as bars over time, an episode at a time: what waited for weeks is cut out, and said."""
    parts: list[RenderableType] = []
    count = sum(episode.count for episode in found)
    head = f"{title}: {count} spans in {len(found)} episodes" if len(found) > 1 else f"{title}: {count} spans"
    parts.append(Text(head, style="bold"))
    bar = max(20, min(_BAR, console.width - 80))
    left, before = _MOST_SPANS, None
    for episode in found:
        if left <= 0:
            parts.append(Text("and more", style="dim"))
            break
        gap = "" if before is None else f"  {lasting((episode.start - before) / 1e9)} later"
        took = (episode.end - episode.start) / 1e6
        shown = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
        for options in ({"width": 46, "no_wrap": True}, {"no_wrap": True}, {"justify": "right", "no_wrap": True}, {}):
            shown.add_column(**options)
        for root in episode.roots:
            left = _bars(shown, root, 0, episode, bar, left)
        heading = f"{episode.at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f" UTC, {took:,.1f} ms{gap}"
        parts.append(Panel(shown, title=heading, title_align="left", border_style="dim"))
        before = episode.end
    return Group(*parts)


def _bars(shown: Table, span: Span, depth: int, episode: Episode, bar: int, left: int) -> int:
    if left <= 0:
        return left
    name = Text(f"{'  ' * min(depth, 12)}{span.name}", style=_BAD if span.error else "", overflow="ellipsis")
    if span.times > 1:
        name.append(f" x{span.times}", style="dim")
    style = color(span.service)
    shown.add_row(
        name,
        Text(span.service, style=style),
        f"{span.milliseconds:,.1f} ms",
        Text(_bar(span, episode, bar), style=style),
    )
    left -= 1
    for child in span.children:
        left = _bars(shown, child, depth + 1, episode, bar, left)
    return left


def _bar(span: Span, episode: Episode, width: int) -> str:
    whole = max(1, episode.end - episode.start)
    first = min(width - 1, int((span.start - episode.start) / whole * width))
    length = max(1, min(width - first, round((span.end - span.start) / whole * width)))
    return " " * first + "█" * length


def ago(text: str, now: datetime) -> datetime:
    """A time with its zone, or so long ago (``90s``, ``30m``, ``2h``, ``3d``). Raises ValueError."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[-1:] in units and text[:-1].isdigit():
        return now - timedelta(**{units[text[-1]]: int(text[:-1])})
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if at.tzinfo is None:
        raise ValueError("a time needs its zone, as in 2026-03-02T15:00:00Z")
    return at

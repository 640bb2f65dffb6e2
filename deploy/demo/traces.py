"""One case's trace, read from the spans that the services exported, as a tree."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Span:
    """A span, and those it caused. ``times`` counts alike siblings that are shown as one."""

    id: str
    parent: str | None
    trace: str
    name: str
    service: str
    start: int
    end: int
    error: bool
    attributes: dict[str, Any]
    children: list[Span] = field(default_factory=list)
    times: int = 1

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e6


def read(folder: Path) -> list[Span]:
    """All spans in the JSON-lines files of a folder; a line that is still being written is left out."""
    spans = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                raw = json.loads(line)
            except ValueError:
                continue
            spans.append(
                Span(
                    id=raw["span_id"],
                    parent=raw["parent_id"],
                    trace=raw["trace_id"],
                    name=raw["name"],
                    service=raw["service"] or "?",
                    start=raw["start"],
                    end=raw["end"],
                    error=bool(raw["error"]),
                    attributes=raw["attributes"],
                )
            )
    return spans


def of_case(spans: Iterable[Span], id: str) -> list[Span]:
    """The spans of the trace that names a document most often: that document's own."""
    by_trace: dict[str, list[Span]] = defaultdict(list)
    naming: dict[str, int] = defaultdict(int)
    for span in spans:
        by_trace[span.trace].append(span)
        naming[span.trace] += id in span.attributes.values()
    if not any(naming.values()):
        return []
    trace = max(naming, key=lambda one: naming[one])
    return sorted(by_trace[trace], key=lambda span: span.start)


def tree(spans: Sequence[Span]) -> list[Span]:
    """The roots, with children in order of time. Alike siblings without children of their own are shown as one."""
    known = {span.id: span for span in spans}
    roots: list[Span] = []
    for span in spans:
        parent = known.get(span.parent) if span.parent else None
        (parent.children if parent else roots).append(span)
    for span in spans:
        span.children = _folded(span.children)
    return _folded(roots)


def _folded(siblings: list[Span]) -> list[Span]:
    shown: list[Span] = []
    alike: dict[tuple[str, str], Span] = {}
    for span in siblings:
        first = alike.get((span.service, span.name))
        if first is not None and not span.children and not first.children:
            first.times += 1
            continue
        alike.setdefault((span.service, span.name), span)
        shown.append(span)
    return shown


def services(spans: Iterable[Span]) -> list[str]:
    """The services that took part, in alphabetical order."""
    return sorted({span.service for span in spans})

"""A case's spans, from Jaeger or from files, cut into episodes: hours of work within weeks of waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from deploy.carectl.client import Unreachable
from deploy.demo import traces
from deploy.demo.traces import Span

_APART = timedelta(seconds=2)
"""What begins so long after everything before it has ended is another episode."""


@dataclass(frozen=True, slots=True)
class Episode:
    """Spans that belong together in time, as a tree; each's place in it is told from ``start``, in nanoseconds."""

    start: int
    end: int
    roots: tuple[Span, ...]
    count: int

    @property
    def at(self) -> datetime:
        """When it began."""
        return datetime.fromtimestamp(self.start / 1e9, UTC)


async def from_jaeger(url: str, trace_id: str, http: httpx.AsyncClient) -> list[Span]:
    """The spans of a trace as Jaeger's query service has them; none where it knows no such trace."""
    try:
        answer = await http.get(f"{url.rstrip('/')}/api/traces/{trace_id}")
    except httpx.HTTPError as error:
        raise Unreachable(f"jaeger: {type(error).__name__}") from None
    if answer.status_code == httpx.codes.NOT_FOUND:
        return []
    if not answer.is_success:
        raise Unreachable(f"jaeger: status {answer.status_code}")
    return [span for trace in answer.json().get("data") or () for span in _of(trace)]


def _of(trace: dict[str, Any]) -> list[Span]:
    services = {name: process["serviceName"] for name, process in trace["processes"].items()}
    found = []
    for raw in trace["spans"]:
        tags = {tag["key"]: tag["value"] for tag in raw.get("tags", ())}
        parents = [each["spanID"] for each in raw.get("references", ()) if each["refType"] == "CHILD_OF"]
        start = raw["startTime"] * 1000
        found.append(
            Span(
                id=raw["spanID"],
                parent=parents[0] if parents else None,
                trace=raw["traceID"],
                name=raw["operationName"],
                service=services[raw["processID"]],
                start=start,
                end=start + raw["duration"] * 1000,
                error=tags.get("error") in (True, "true"),
                attributes=tags,
            )
        )
    return found


def episodes(spans: Sequence[Span]) -> list[Episode]:
    """The spans of one trace, oldest first, cut where nothing happened for a while."""
    portions: list[list[Span]] = []
    end = 0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if not portions or span.start - end > _APART.total_seconds() * 1e9:
            portions.append([])
        portions[-1].append(span)
        end = max(end, span.end)
    return [
        Episode(portion[0].start, max(span.end for span in portion), tuple(traces.tree(portion)), len(portion))
        for portion in portions
    ]

"""Logs, traces and metrics: JSON lines without personal data, one trace a case, W3C contexts carried as text.

An event that nobody sampled costs next to nothing: its trace context is passed on as it came.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shared.contracts.base import Event
from shared.kit import metrics as catalogue
from shared.kit.metrics import Attributes, Counted, Metric

log = structlog.get_logger("carerelay")


def where_raised(error: BaseException) -> str:
    """An exception's type and where it was raised, without its message, which may hold personal data."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{place}"


def _safe_exception(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace an exception by its type and the places it went through."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["raised"] = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ][-8:]
    return event


class _JsonLines(logging.Formatter):
    """Libraries' own log records as JSON lines, exceptions without their messages."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.msg if record.exc_info else record.getMessage(),
        }
        if record.exc_info and record.exc_info[1]:
            line["event"] = "a library reported an error"
            line["error"] = where_raised(record.exc_info[1])
        return json.dumps(line)


def configure_logs(service: str, level: str = "INFO") -> None:
    """Write JSON lines to standard output: ours at ``level``, libraries' from WARNING on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _safe_exception,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)


class JsonLinesExporter(SpanExporter):
    """Spans as JSON lines in a file that several processes may append to; for the demo and for tests."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1024 * 1024)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append the spans; each line is whole."""
        for span in spans:
            self._file.write(json.dumps(span_as_json(span)) + "\n")
        self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


def span_as_json(span: ReadableSpan) -> dict[str, Any]:
    """A span in a small JSON shape: ids in hex, times in nanoseconds since 1970."""
    context = span.get_span_context()
    return {
        "trace_id": f"{context.trace_id:032x}" if context else None,
        "span_id": f"{context.span_id:016x}" if context else None,
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "name": span.name,
        "kind": span.kind.name.lower(),
        "service": span.resource.attributes.get("service.name"),
        "start": span.start_time,
        "end": span.end_time,
        "attributes": dict(span.attributes or {}),
        "links": [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links],
        "error": span.status.status_code is StatusCode.ERROR,
    }


def _context(traceparent: str) -> SpanContext | None:
    """The span context in a W3C traceparent, or None where it is not one."""
    parts = traceparent.split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return None
    try:
        context = SpanContext(int(parts[1], 16), int(parts[2], 16), True, TraceFlags(int(parts[3][:2], 16)))
    except ValueError:
        return None
    return context if context.is_valid else None


def same_trace(one: str, other: str) -> bool:
    """Whether two W3C traceparents belong to one trace."""
    return one.split("-")[1:2] == other.split("-")[1:2]


def _unsampled(traceparent: str) -> bool:
    """Whether a context says that nobody records it; its flags may say more beside (00 or, of random ids, 02)."""
    return len(traceparent) == _TRACEPARENT_LENGTH and traceparent[-1] in "02468ace"


def well_formed(traceparent: str | None) -> str | None:
    """A traceparent from outside, or None where it is not one: it will be stored and handed on."""
    if traceparent is None or not _TRACEPARENT.match(traceparent):
        return None
    return traceparent if traceparent[3:35].strip("0") and traceparent[36:52].strip("0") else None


_TRACEPARENT_LENGTH = 55
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


@dataclass(slots=True)
class Traced:
    """One piece of work: the trace context to hand on, and the span where it is recorded."""

    context: str | None
    span: Span | None = None

    def end(self, error: BaseException | None = None) -> None:
        """Finish the span; an error is named by its type alone."""
        if self.span is None:
            return
        if error is not None:
            self.span.set_attribute("error.type", type(error).__name__)
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()

    def __enter__(self) -> Traced:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end(error)


class Telemetry:
    """Traces and metrics of one process. ``quiet()`` makes one that records nothing."""

    def __init__(self, tracers: TracerProvider | None, meters: MeterProvider | None = None) -> None:
        self._provider = tracers
        self._meters = meters
        self._tracer = tracers.get_tracer("carerelay") if tracers else None
        self._meter = (meters or metrics.NoOpMeterProvider()).get_meter("carerelay")
        self.decided = self._counter(catalogue.DECISIONS)
        self.published = self._counter(catalogue.SENT)
        self.consumed = self._counter(catalogue.CONSUMED)
        self.parked = self._counter(catalogue.PARKED)
        self.conflicts = self._counter(catalogue.CONFLICTS)
        self.calls = self._counter(catalogue.CALLS)
        self.callbacks = self._counter(catalogue.CALLBACKS)
        self.replaced = self._counter(catalogue.REPLACED)
        self.lateness = self._histogram(catalogue.LATENESS)
        self.latency = self._histogram(catalogue.LATENCY)
        self.operations = self._histogram(catalogue.OPERATION_DURATION)
        self.processed = self._histogram(catalogue.PROCESS_DURATION)
        self.requests = self._histogram(catalogue.REQUEST_DURATION)
        self._counted: dict[type[Event], list[tuple[metrics.Counter, Counted]]] = {}

    def _counter(self, metric: Metric) -> metrics.Counter:
        return self._meter.create_counter(metric.name, metric.unit, metric.description)

    def _histogram(self, metric: Metric) -> metrics.Histogram:
        return self._meter.create_histogram(
            metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=list(metric.buckets)
        )

    def observe(self, read: Callable[[], Iterable[tuple[Metric, float, Attributes]]]) -> None:
        """Have the catalogue's gauges read by ``read``, which must not wait: it is asked by the exporter's thread."""
        for gauge in catalogue.GAUGES:

            def observed(_: CallbackOptions, gauge: Metric = gauge) -> Iterable[Observation]:
                return [Observation(value, dict(about)) for metric, value, about in read() if metric is gauge]

            self._meter.create_observable_gauge(gauge.name, [observed], gauge.unit, gauge.description)

    def count(self, counts: Iterable[Counted]) -> None:
        """Have the events counted that a service wants counted."""
        made: dict[str, metrics.Counter] = {}
        for row in counts:
            counter = made.setdefault(row.metric.name, self._counter(row.metric))
            self._counted.setdefault(row.event, []).append((counter, row))

    def recorded(self, events: Sequence[tuple[Event, str | None]]) -> None:
        """Events whose record has landed."""
        if not self._counted:
            return
        for event, _ in events:
            for counter, row in self._counted.get(type(event), ()):
                counter.add(1, dict(row.attributes(event)))

    @classmethod
    def quiet(cls) -> Telemetry:
        """Records nothing, and hands contexts on as they came."""
        return cls(None)

    @classmethod
    def configure(
        cls,
        service: str,
        *,
        role: str = "all",
        instance: str = "",
        every: float = 10.0,
        ratio: float = 0.1,
        traces_file: Path | None = None,
        endpoint: str | None = None,
        processors: Sequence[SpanProcessor] = (),
    ) -> Telemetry:
        """Export to a file, to an OpenTelemetry collector at ``endpoint`` (OTLP over HTTP), or to nowhere.

        ``instance`` tells this process from others of its service, metrics go out every so many seconds.
        """
        told = {"service.name": service, "service.namespace": "carerelay", catalogue.ROLE: role}
        resource = Resource.create({**told, "service.instance.id": instance} if instance else told)
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)), resource=resource)
        exporting = list(processors)
        if traces_file is not None:
            exporting.append(SimpleSpanProcessor(JsonLinesExporter(traces_file)))
        meters: MeterProvider | None = None
        if endpoint is not None:
            base = endpoint.rstrip("/")
            exporting.append(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces")))
            reader = PeriodicExportingMetricReader(
                OTLPMetricExporter(endpoint=f"{base}/v1/metrics"), export_interval_millis=every * 1000
            )
            meters = MeterProvider(metric_readers=[reader], resource=resource)
        for processor in exporting:
            provider.add_span_processor(processor)
        return cls(provider if exporting else None, meters)

    def start(
        self,
        name: str,
        parent: str | None,
        attributes: Callable[[], Attributes] | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[str | None] = (),
    ) -> Traced:
        """Begin a piece of work under a W3C ``parent`` context, or as a new trace where there is none.

        ``attributes`` is asked only where the span is recorded: most are not, and to say what they are about costs more
        than the rest of them.
        """
        if self._tracer is None or (parent is not None and _unsampled(parent)):
            return Traced(parent)
        around = _context(parent) if parent else None
        linked = [Link(other) for text in links if text and (other := _context(text)) is not None]
        span = self._tracer.start_span(
            name,
            context=trace.set_span_in_context(NonRecordingSpan(around)) if around else Context(),
            kind=kind,
            links=linked,
        )
        if attributes is not None and span.is_recording():
            span.set_attributes(dict(attributes() or {}))
        made = span.get_span_context()
        handed_on = f"00-{made.trace_id:032x}-{made.span_id:016x}-{int(made.trace_flags):02x}"
        return Traced(handed_on, span if span.is_recording() else None)

    def close(self) -> None:
        """Flush what is still to be exported."""
        if self._provider:
            self._provider.shutdown()
        if self._meters:
            self._meters.shutdown()


CASE_FIELDS = ("patient_id", "referral_id", "authorization_id", "appointment_id", "delivery_id", "handoff_id")


def case_attributes(message: object) -> dict[str, str | int | float | bool]:
    """The opaque case ids that a message or document carries, as span attributes."""
    found: dict[str, str | int | float | bool] = {}
    kind: Any = type(message)
    for name in _case_fields(kind):
        value = getattr(message, name, None)
        if isinstance(value, str):
            found[f"carerelay.{name}"] = value
    return found


def about(document: Any) -> dict[str, str | int | float | bool]:
    """What every span of work on a document says of it: its type, its id, and the opaque case ids that it carries."""
    return {
        "carerelay.document.type": type(document).__name__,
        "carerelay.document.id": document.id,
        **case_attributes(document),
    }


@cache
def _case_fields(kind: Any) -> tuple[str, ...]:
    """Which of them a type may have: a model is asked once, since it is slow to say no."""
    declared = getattr(kind, "model_fields", None)
    return CASE_FIELDS if declared is None else tuple(name for name in CASE_FIELDS if name in declared)

"""The catalogue of metrics: each is declared here, once, with unit, kind and attributes; instruments are made of these.

Messaging and HTTP metrics are those of OpenTelemetry's semantic conventions (schema 1.44), ours begin with
``carerelay.``. Attributes take few values: never an id, never a key. ``docs/metrics.md`` is written from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.contracts.base import Event

Attributes = Mapping[str, str | int | float | bool]


class Kind(StrEnum):
    """What an instrument does; a gauge is read when it is exported."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``unit`` is UCUM, an annotation in braces for what is counted; ``buckets`` are upper bounds."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SYSTEM = "messaging.system"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
GROUP = "messaging.consumer.group.name"
CLIENT = "messaging.client.id"
ERROR = "error.type"
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
DOCUMENT = "carerelay.document.type"
COLLECTION = "carerelay.collection"
QUEUE = "carerelay.queue"
TIMER = "carerelay.timer"
OUTCOME = "carerelay.outcome"
CHANNEL = "carerelay.channel"
CALLEE = "carerelay.callee"
DOOR = "carerelay.door"
ROLE = "carerelay.role"

ATTRIBUTES: Mapping[str, str] = {
    SYSTEM: "`kafka`",
    OPERATION: "`send`, `poll`, `process`, `commit`",
    OPERATION_TYPE: "`send`, `receive`, `process`, `settle`",
    DESTINATION: "the topic",
    GROUP: "the consumer group, `<service>.<collection or role>`",
    ERROR: "an exception's type; absent where all went well",
    METHOD: "`GET`, `POST`, ...",
    ROUTE: "the route's template, never a path: no id is in it",
    STATUS: "the answer's status",
    DOCUMENT: "the document's type",
    COLLECTION: "the store's collection",
    QUEUE: "the due queue, `<service>.<collection>[.<queue>]`",
    TIMER: "the timer, which is also the name of the call that it starts",
    OUTCOME: "how it ended",
    CHANNEL: "`sms`, `voice`, `email`, `letter`; `none` where none was chosen",
    CALLEE: "who is called outside: a payer's id",
    DOOR: "`api`: from the request to its write; `reactions`: from the event to the write that takes it in",
    ROLE: "what the process is run as",
}
"""What each attribute may hold."""

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
_HTTP = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

SENT = Metric(
    "messaging.client.sent.messages",
    Kind.COUNTER,
    "{message}",
    "Events handed to the broker, with `error.type` where it did not acknowledge them.",
    (SYSTEM, OPERATION, DESTINATION, ERROR),
)
CONSUMED = Metric(
    "messaging.client.consumed.messages",
    Kind.COUNTER,
    "{message}",
    "Events taken in that the group has a use for.",
    (SYSTEM, OPERATION, DESTINATION, GROUP),
)
OPERATION_DURATION = Metric(
    "messaging.client.operation.duration",
    Kind.HISTOGRAM,
    "s",
    "How long sending a batch of one partition, or committing a batch of a group, took.",
    (SYSTEM, OPERATION, OPERATION_TYPE, DESTINATION, GROUP, ERROR),
    _QUICK,
)
PROCESS_DURATION = Metric(
    "messaging.process.duration",
    Kind.HISTOGRAM,
    "s",
    "How long a batch of a group was in work: read, decided, written; one value a batch.",
    (SYSTEM, OPERATION, GROUP, ERROR),
    _QUICK,
)
REQUEST_DURATION = Metric(
    "http.server.request.duration",
    Kind.HISTOGRAM,
    "s",
    "How long a request took; its count is the number of requests.",
    (METHOD, ROUTE, STATUS, ERROR),
    _HTTP,
)
DECISIONS = Metric("carerelay.decisions", Kind.COUNTER, "{decision}", "Decisions that were written.", (DOCUMENT,))
LATENCY = Metric(
    "carerelay.decision.latency",
    Kind.HISTOGRAM,
    "s",
    "From what asked for a decision to its write. Of reactions the oldest event of each batch, by the domain's time: "
    "an upper bound of the others, so that an event costs nothing.",
    (DOOR, DOCUMENT, GROUP),
    _LONG,
)
CONFLICTS = Metric(
    "carerelay.conflicts",
    Kind.COUNTER,
    "{write}",
    "Writes that lost a version race and were decided again.",
    (DOCUMENT,),
)
PARKED = Metric(
    "carerelay.parked.messages",
    Kind.COUNTER,
    "{message}",
    "Events set aside, those waiting behind others too.",
    (GROUP,),
)
CALLS = Metric(
    "carerelay.calls",
    Kind.COUNTER,
    "{call}",
    "Outside calls, by the type of their outcome; `Unanswered` and `Refused` among them.",
    (TIMER, OUTCOME),
)
LATENESS = Metric(
    "carerelay.due.lateness",
    Kind.HISTOGRAM,
    "s",
    "From the time that was set to the decision it led to.",
    (TIMER,),
    _LONG,
)
DELIVERIES = Metric(
    "carerelay.deliveries",
    Kind.COUNTER,
    "{delivery}",
    "What became of messages to people: `accepted`, `delivered`, `failed`, `dropped`, `unknown`, `escalated`. One "
    "message counts once an outcome.",
    (OUTCOME, CHANNEL),
)
CALLBACKS = Metric(
    "carerelay.callbacks",
    Kind.COUNTER,
    "{request}",
    "What gateways and payers told us: requests on routes that are for other systems alone.",
    (ROUTE, STATUS),
)
REPLACED = Metric(
    "carerelay.readers.replaced",
    Kind.COUNTER,
    "{client}",
    "Broker clients that stood still and were replaced.",
    (GROUP,),
)
LAG = Metric(
    "carerelay.lag",
    Kind.GAUGE,
    "s",
    "Age of the oldest record that a group has not committed, of this process's partitions; 0 where there is none.",
    (GROUP, DESTINATION),
)
LAG_MESSAGES = Metric(
    "carerelay.lag.messages", Kind.GAUGE, "{message}", "How many such records there are.", (GROUP, DESTINATION)
)
OUTBOX_AGE = Metric(
    "carerelay.outbox.age",
    Kind.GAUGE,
    "s",
    "How long the oldest event that the broker does not have yet has waited. Told by one process of a service.",
    (COLLECTION,),
)
PUBLISHING = Metric(
    "carerelay.outbox.publishing", Kind.GAUGE, "{document}", "Documents whose events this process is sending."
)
DUE_AGE = Metric(
    "carerelay.due.age",
    Kind.GAUGE,
    "s",
    "How long the oldest due document of a queue is overdue; 0 where none is. Told by one process of a service.",
    (QUEUE,),
)
PARKED_KEYS = Metric(
    "carerelay.parked.keys",
    Kind.GAUGE,
    "{key}",
    "Keys whose events wait for an operator or a replay, up to 1,000. Told by one process of a service.",
    (GROUP,),
)
LEASES = Metric(
    "carerelay.leases.held",
    Kind.GAUGE,
    "{slot}",
    "Slots of a queue, of 256, that are leased to this process.",
    (QUEUE,),
)
BREAKER = Metric(
    "carerelay.breaker.state",
    Kind.GAUGE,
    "{state}",
    "How this process calls somebody outside: 0 as usual, 1 not before a time that they named, 2 probing by one call, "
    "3 left alone after failures.",
    (QUEUE, CALLEE),
)
BUDGET = Metric(
    "carerelay.budget.left", Kind.GAUGE, "{call}", "Calls that may begin now within what they allow.", (QUEUE, CALLEE)
)
IN_FLIGHT = Metric("carerelay.calls.in_flight", Kind.GAUGE, "{call}", "Calls out now.", (QUEUE, CALLEE))
READY = Metric(
    "carerelay.ready",
    Kind.GAUGE,
    "{process}",
    "1 where this process can do its work, 0 where something is missing.",
    (ROLE,),
)

CATALOGUE: tuple[Metric, ...] = (
    SENT,
    CONSUMED,
    OPERATION_DURATION,
    PROCESS_DURATION,
    REQUEST_DURATION,
    DECISIONS,
    LATENCY,
    CONFLICTS,
    PARKED,
    CALLS,
    LATENESS,
    DELIVERIES,
    CALLBACKS,
    REPLACED,
    LAG,
    LAG_MESSAGES,
    OUTBOX_AGE,
    PUBLISHING,
    DUE_AGE,
    PARKED_KEYS,
    LEASES,
    BREAKER,
    BUDGET,
    IN_FLIGHT,
    READY,
)
GAUGES = tuple(metric for metric in CATALOGUE if metric.kind is Kind.GAUGE)


@dataclass(frozen=True, slots=True)
class Counted:
    """An event whose records are counted once each, when the write that records it has landed."""

    event: type[Event]
    metric: Metric
    attributes: Callable[[Any], Attributes]


_UNITS = {"s": "seconds", "By": "bytes", "1": "ratio"}
_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_]+")


def prometheus_name(metric: Metric) -> str:
    """What Prometheus calls it, as its OTLP receiver and the collector's exporter translate: ``_total``, unit suffixes.

    Of a histogram the base name, to which ``_bucket``, ``_sum`` and ``_count`` are added.
    """
    parts = [_NOT_A_NAME.sub("_", metric.name).strip("_")]
    unit = _UNITS.get(metric.unit)
    if unit is not None and unit not in parts[0].split("_") and (metric.unit != "1" or metric.kind is Kind.GAUGE):
        parts.append(unit)
    if metric.kind is Kind.COUNTER:
        parts.append("total")
    return "_".join(parts)


def prometheus_series(metric: Metric) -> tuple[str, ...]:
    """The names under which its values stand in Prometheus."""
    name = prometheus_name(metric)
    return tuple(f"{name}_{part}" for part in ("bucket", "sum", "count")) if metric.kind is Kind.HISTOGRAM else (name,)


def prometheus_label(attribute: str) -> str:
    """What Prometheus calls an attribute."""
    return _NOT_A_NAME.sub("_", attribute)

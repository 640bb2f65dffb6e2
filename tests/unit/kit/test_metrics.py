"""What processes record is what the catalogue declares, name by name, and the other way round."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    InMemoryMetricReader,
    Sum,
)
from opentelemetry.semconv._incubating.metrics import messaging_metrics
from opentelemetry.semconv.metrics import http_metrics

from services.notifications.service import OUTCOMES, counted
from shared.contracts.intake import Channel
from shared.contracts.notifications import DeliveryAccepted, DeliveryKind
from shared.kit import metrics
from shared.kit.api import Call, Reply, Routes
from shared.kit.auth import Role
from shared.kit.metrics import CATALOGUE, Kind, Metric, prometheus_name, prometheus_series
from shared.kit.pacing import Allowance
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.telemetry import Telemetry
from shared.kit.testing.harness import Harness
from tests.unit.kit.test_engine import letter
from tests.unit.kit.toy import POISON, Box, build
from tests.unit.test_rules import full_names, parse, tracked, where

BY_NAME = {metric.name: metric for metric in CATALOGUE}
OF_THE_BROKERS_CLIENT = {metrics.OPERATION_DURATION.name, metrics.REPLACED.name}
"""Recorded by the adapter of a real broker: ``tests/integration/embedded/test_stuck_reader.py`` sees them."""
MAKES = re.compile(r"\.create_\w*(counter|histogram|gauge)$")
KINDS = {Kind.COUNTER: Sum, Kind.HISTOGRAM: Histogram, Kind.GAUGE: Gauge}


class Recorded:
    """Telemetry whose metrics a test can look at."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.telemetry = Telemetry(None, MeterProvider(metric_readers=[self.reader]))

    def metrics(self) -> dict[str, Any]:
        """By name, what was recorded until now."""
        data: Any = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}


def points(metric: Any) -> list[tuple[dict[str, Any], Any]]:
    """The attributes and the value, or the count, of each of its points."""
    return [(dict(p.attributes), getattr(p, "value", getattr(p, "count", None))) for p in metric.data.data_points]


def a_toy(settings: KitSettings, http: httpx.AsyncClient) -> Service:
    """The toy with everything that a service may have: an outside call that is paced, a callback, counted events."""
    made = build(settings, http)
    (jobs,) = made.jobs
    object.__setattr__(jobs.rows["send"], "pace", lambda box: ("postman#1", Allowance(rate=100.0, whom="postman")))
    callbacks = Routes("/callbacks")

    @callbacks.post("/{box_id}", roles={Role.SERVICE})
    async def take(box_id: str, call: Call) -> Reply:
        return Reply(200, {})

    counts = [counted(event, outcome) for event, outcome in OUTCOMES.items()]
    return Service(
        made.name, made.documents, made.reactions, made.jobs, (*made.routes, callbacks), counts=tuple(counts)
    )


async def everything(recorded: Recorded) -> None:
    """Have a service do everything that is recorded, once at least."""
    harness = Harness(KitSettings, a_toy, telemetry=recorded.telemetry)
    await harness.settle()
    async with harness.client(Role.COORDINATOR) as client:
        made = await client.post("/boxes", json={"owner": "o", "limit_days": 3}, headers=harness.key())
        box = f"/boxes/{made.json()['id']}"
        body = {"letter": "00000000-0000-4000-8000-000000000001"}
        assert (await client.post(f"{box}/letters", json=body, headers=harness.key())).status_code == 200
        assert (await client.get("/boxes/made-up")).status_code == 422
    async with harness.client(Role.SERVICE) as client:
        assert (await client.post("/callbacks/one", json={}, headers=harness.key())).status_code == 200
    await harness.settle()
    await harness.arrive(letter("1", text=POISON), "sender", 1)
    await harness.arrive(letter("2", "raced"), "another", 1)
    await race(harness, "raced")
    await harness.settle()
    told = DeliveryAccepted(
        delivery_id="d", appointment_id="a", patient_id="p", kind=DeliveryKind.REMINDER, channel=Channel.SMS
    )
    recorded.telemetry.recorded([(told, None)])
    harness.chassis.signals.latest = await harness.chassis.signals.snapshot()


async def race(harness: Harness, id: str) -> None:
    """Have a write of the API come between a reaction's read and its write."""
    repository = harness.chassis.repository
    write = repository.write
    held = (await repository.load(Box, [id]))[id]
    held.document = Box(id=id)

    async def first(document: Any, batch: Any) -> Any:
        repository.write = write  # type: ignore[method-assign]
        staged = repository.stage(held)
        assert staged is not None
        await write(Box, [(held, staged)])
        return await write(document, batch)

    repository.write = first  # type: ignore[method-assign]


async def test_every_metric_that_is_recorded_is_in_the_catalogue_with_its_kind_unit_and_attributes() -> None:
    recorded = Recorded()

    await everything(recorded)

    for name, found in recorded.metrics().items():
        declared = BY_NAME[name]
        assert (found.unit, found.description) == (declared.unit, declared.description)
        assert isinstance(found.data, KINDS[declared.kind])
        for attributes, _ in points(found):
            assert set(attributes) <= set(declared.attributes), name
        if declared.kind is Kind.HISTOGRAM:
            assert tuple(found.data.data_points[0].explicit_bounds) == declared.buckets


async def test_every_metric_of_the_catalogue_is_recorded_by_a_service_that_does_everything() -> None:
    recorded = Recorded()

    await everything(recorded)

    assert set(BY_NAME) - set(recorded.metrics()) == OF_THE_BROKERS_CLIENT


async def test_no_id_stands_in_an_attribute() -> None:
    recorded = Recorded()

    await everything(recorded)

    values = {
        str(v) for found in recorded.metrics().values() for attributes, _ in points(found) for v in attributes.values()
    }
    assert "/boxes/{box_id}/letters" in values
    assert "postman" in values
    assert not [value for value in values if "000000" in value or "made-up" in value or value.count("-") == 4]


async def test_gauges_show_nothing_when_whoever_looks_hangs() -> None:
    recorded = Recorded()
    harness = Harness(KitSettings, build, telemetry=recorded.telemetry)
    await harness.settle()
    harness.chassis.signals.latest = await harness.chassis.signals.snapshot()
    harness.chassis.signals._every = 10.0
    assert points(recorded.metrics()[metrics.READY.name]) == [({metrics.ROLE: "all"}, 1.0)]

    harness.clock.pass_(31)

    assert metrics.READY.name not in recorded.metrics()


@pytest.mark.parametrize(("event", "outcome"), OUTCOMES.items(), ids=OUTCOMES.values())
def test_deliveries_are_counted_by_outcome_and_channel(event: Any, outcome: str) -> None:
    recorded = Recorded()
    recorded.telemetry.count(counted(each, named) for each, named in OUTCOMES.items())

    recorded.telemetry.recorded([(event.model_construct(channel=Channel.SMS), None)])
    recorded.telemetry.recorded([(event.model_construct(channel=None), None)] * 2)

    found = points(recorded.metrics()[metrics.DELIVERIES.name])
    assert found == [
        ({metrics.OUTCOME: outcome, metrics.CHANNEL: "sms"}, 1),
        ({metrics.OUTCOME: outcome, metrics.CHANNEL: "none"}, 2),
    ]


# -- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (metrics.SENT, "messaging_client_sent_messages_total"),
        (metrics.PROCESS_DURATION, "messaging_process_duration_seconds"),
        (metrics.REQUEST_DURATION, "http_server_request_duration_seconds"),
        (metrics.DELIVERIES, "carerelay_deliveries_total"),
        (metrics.LAG, "carerelay_lag_seconds"),
        (metrics.LAG_MESSAGES, "carerelay_lag_messages"),
        (metrics.IN_FLIGHT, "carerelay_calls_in_flight"),
        (Metric("carerelay.share", Kind.GAUGE, "1", ""), "carerelay_share_ratio"),
        (Metric("carerelay.share", Kind.COUNTER, "1", ""), "carerelay_share_total"),
        (Metric("carerelay.read", Kind.COUNTER, "By", ""), "carerelay_read_bytes_total"),
        (Metric("carerelay.wait.seconds", Kind.GAUGE, "s", ""), "carerelay_wait_seconds"),
    ],
)
def test_prometheus_calls_a_metric_by_its_name_unit_and_kind(metric: Metric, name: str) -> None:
    assert prometheus_name(metric) == name


def test_no_two_metrics_have_one_name() -> None:
    series = [name for metric in CATALOGUE for name in prometheus_series(metric)]
    assert len(series) == len(set(series))
    assert len(BY_NAME) == len(CATALOGUE)


def test_the_conventions_names_and_units_are_theirs() -> None:
    theirs = {
        messaging_metrics.MESSAGING_CLIENT_SENT_MESSAGES,
        messaging_metrics.MESSAGING_CLIENT_CONSUMED_MESSAGES,
        messaging_metrics.MESSAGING_CLIENT_OPERATION_DURATION,
        messaging_metrics.MESSAGING_PROCESS_DURATION,
        http_metrics.HTTP_SERVER_REQUEST_DURATION,
    }
    assert {name for name in BY_NAME if not name.startswith("carerelay.")} == theirs


def instruments() -> Iterator[tuple[str, ast.Call]]:
    """Where an instrument is made, in all services and in what they share."""
    for path in tracked("services/*.py", "shared/*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and MAKES.search(ast.unparse(node.func)):
                yield where(path, node), node


def test_instruments_are_made_of_the_catalogue_alone() -> None:
    found = list(instruments())
    assert {place.split(":")[0] for place, _ in found} == {"shared/kit/telemetry.py"}
    assert all(ast.unparse(call.args[0]) in {"metric.name", "gauge.name"} for _, call in found)
    assert full_names(parse(tracked("shared/kit/telemetry.py")[0]))["Metric"] == "shared.kit.metrics.Metric"


def test_every_attribute_is_explained() -> None:
    used = {name for metric in CATALOGUE for name in metric.attributes}
    assert used <= set(metrics.ATTRIBUTES)

"""What a process tells goes out by OTLP over HTTP and says whose it is; the collector here keeps what is posted."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shared.kit import metrics
from shared.kit.telemetry import Telemetry


class Collector:
    """What was posted, by path."""

    def __init__(self) -> None:
        posted: dict[str, list[bytes]] = {}
        self.posted = posted

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                packed = self.headers.get("content-encoding") == "gzip"
                posted.setdefault(self.path, []).append(gzip.decompress(body) if packed else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    serving = threading.Thread(target=made.server.serve_forever)
    serving.start()
    yield made
    made.server.shutdown()
    serving.join()
    made.server.server_close()


def about(resource: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in resource.attributes}


def test_metrics_and_spans_reach_the_collector_and_name_service_process_and_role(collector: Collector) -> None:
    telemetry = Telemetry.configure("toy", role="jobs", instance="one", ratio=1.0, endpoint=collector.endpoint)
    telemetry.observe(lambda: [(metrics.LEASES, 256, {metrics.QUEUE: "toy.box"})])
    telemetry.decided.add(3, {metrics.DOCUMENT: "Box"})
    telemetry.start("work", None).end()

    telemetry.close()

    (told,) = ExportMetricsServiceRequest.FromString(collector.posted["/v1/metrics"][-1]).resource_metrics
    (traced,) = ExportTraceServiceRequest.FromString(collector.posted["/v1/traces"][-1]).resource_spans
    whose = {
        "service.name": "toy",
        "service.namespace": "carerelay",
        "service.instance.id": "one",
        "carerelay.role": "jobs",
    }
    assert whose.items() <= about(told.resource).items()
    assert whose.items() <= about(traced.resource).items()
    found = {metric.name: metric for scope in told.scope_metrics for metric in scope.metrics}
    assert found[metrics.DECISIONS.name].sum.data_points[0].as_int == 3
    assert found[metrics.DECISIONS.name].sum.is_monotonic
    assert found[metrics.LEASES.name].gauge.data_points[0].as_int == 256
    assert found[metrics.LEASES.name].unit == metrics.LEASES.unit


def test_gauges_that_nobody_reads_are_not_sent(collector: Collector) -> None:
    telemetry = Telemetry.configure("toy", endpoint=collector.endpoint)
    telemetry.observe(list)
    telemetry.decided.add(1, {metrics.DOCUMENT: "Box"})

    telemetry.close()

    (told,) = ExportMetricsServiceRequest.FromString(collector.posted["/v1/metrics"][-1]).resource_metrics
    assert {metric.name for scope in told.scope_metrics for metric in scope.metrics} == {metrics.DECISIONS.name}

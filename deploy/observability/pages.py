"""``docs/metrics.md``, written from the catalogue in ``shared.kit.metrics``."""

from __future__ import annotations

from collections.abc import Sequence

from shared.kit.metrics import ATTRIBUTES, CATALOGUE, Metric, prometheus_label, prometheus_series

HEAD = """# Metrics

Every metric of every service: this page is written from `shared/kit/metrics.py` by
`python -m deploy.observability`, and a test holds it, and what processes really record, against that module.

They go out by OTLP over HTTP, every `SIGNALS_SECONDS` (10), where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector. The
resource says whose they are: `service.name`, `service.namespace` (`carerelay`), `service.instance.id` (a process),
`carerelay.role`. Prometheus makes of that `job="carerelay/<service>"` and `instance`, of a name with dots one with
underscores, its unit and `_total` added; `prometheus_name` in the same module says how.

Gauges show the latest look of their process, not older than three intervals. What waits in the store is looked at by
one process of a service, the one that has the first slot of its parked keys: so no figure is counted twice, and a queue
whose workers are all gone is still told of. Lag is told by each member of a group for its own partitions.
"""


def row(metric: Metric) -> str:
    """A line of the table."""
    attributes = ", ".join(f"`{name}`" for name in metric.attributes) or "none"
    series = "<br>".join(f"`{name}`" for name in prometheus_series(metric))
    return f"| `{metric.name}` | {metric.kind} | `{metric.unit}` | {metric.description} | {attributes} | {series} |"


def table(metrics: Sequence[Metric]) -> str:
    """A table of metrics."""
    head = "| metric | kind | unit | what it says | attributes | in Prometheus |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(map(row, metrics)) + "\n"


def metrics_page() -> str:
    """The whole page."""
    conventional = [metric for metric in CATALOGUE if not metric.name.startswith("carerelay.")]
    own = [metric for metric in CATALOGUE if metric.name.startswith("carerelay.")]
    used = {name for metric in CATALOGUE for name in metric.attributes}
    attributes = "\n".join(
        f"| `{name}` | `{prometheus_label(name)}` | {meaning} |" for name, meaning in ATTRIBUTES.items() if name in used
    )
    return (
        f"{HEAD}\n## By OpenTelemetry's semantic conventions\n\n{table(conventional)}\n"
        f"## CareRelay's own\n\n{table(own)}\n"
        f"## Attributes\n\n| attribute | label | values |\n|---|---|---|\n{attributes}\n"
    )

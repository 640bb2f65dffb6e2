"""Grafana dashboards: one for the whole, one a service, of the metric catalogue: no panel asks for what there is not.

The builders are Grafana's own (Foundation SDK, generated from its schema); what they make is committed as JSON beside
this file, for whoever provisions Grafana from a folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, DataSourceRef

from deploy.embedded.catalogue import SERVICES
from shared.kit import metrics
from shared.kit.metrics import Kind, Metric, prometheus_label, prometheus_name

UNITS = {"s": "s", "By": "bytes"}
WHOLE = "carerelay"
"""The dashboard of the whole; a service's is named for the service."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: a metric, how it is added up, and by which attributes."""

    title: str
    metric: Metric
    by: tuple[str, ...] = ()
    where: str = ""
    quantile: float = 0.0
    most: bool = True
    """Of a gauge: the greatest over processes, else their sum."""

    def query(self, job: str) -> str:
        """Its PromQL, for the services that ``job`` selects."""
        labels = [prometheus_label(name) for name in self.by]
        by = f" by ({', '.join(labels)})" if labels else ""
        selected = "{" + ", ".join(filter(None, (job, self.where))) + "}"
        name = prometheus_name(self.metric)
        if self.quantile:
            le = ", ".join([*labels, "le"])
            rate = f"rate({name}_bucket{selected}[$__rate_interval])"
            return f"histogram_quantile({self.quantile}, sum by ({le}) ({rate}))"
        if self.metric.kind is Kind.GAUGE:
            return f"{'max' if self.most else 'sum'}{by} ({name}{selected})"
        counted = f"{name}_count" if self.metric.kind is Kind.HISTOGRAM else name
        return f"sum{by} (rate({counted}{selected}[$__rate_interval]))"

    @property
    def unit(self) -> str:
        """Grafana's name of what the axis shows."""
        if self.metric.kind is Kind.GAUGE or self.quantile:
            return UNITS.get(self.metric.unit, "short")
        return "ops"


FAILED = 'http_response_status_code=~"5.."'

ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Does work get on?",
        (
            Panel("Lag of readers", metrics.LAG, (metrics.GROUP, metrics.DESTINATION)),
            Panel("Oldest event not published", metrics.OUTBOX_AGE, (metrics.COLLECTION,)),
            Panel("Oldest due work", metrics.DUE_AGE, (metrics.QUEUE,)),
            Panel("Parked keys", metrics.PARKED_KEYS, (metrics.GROUP,)),
            Panel("Processes ready", metrics.READY, (metrics.ROLE,), most=False),
            Panel("Slots leased, of 256 a queue", metrics.LEASES, (metrics.QUEUE,), most=False),
        ),
    ),
    (
        "Decisions",
        (
            Panel("Decisions written", metrics.DECISIONS, (metrics.DOCUMENT,)),
            Panel("Decision latency, p95", metrics.LATENCY, (metrics.DOOR,), quantile=0.95),
            Panel("Due time to decision, p95", metrics.LATENESS, (metrics.TIMER,), quantile=0.95),
            Panel("Version races lost", metrics.CONFLICTS, (metrics.DOCUMENT,)),
        ),
    ),
    (
        "Requests",
        (
            Panel("Requests", metrics.REQUEST_DURATION, (metrics.ROUTE, metrics.STATUS)),
            Panel("Request duration, p95", metrics.REQUEST_DURATION, (metrics.ROUTE,), quantile=0.95),
            Panel("Errors of our own", metrics.REQUEST_DURATION, (metrics.ROUTE,), where=FAILED),
            Panel("Callbacks", metrics.CALLBACKS, (metrics.ROUTE, metrics.STATUS)),
        ),
    ),
    (
        "Events",
        (
            Panel("Events sent", metrics.SENT, (metrics.DESTINATION, metrics.ERROR)),
            Panel("Events taken in", metrics.CONSUMED, (metrics.GROUP, metrics.DESTINATION)),
            Panel("Batches in work, p95", metrics.PROCESS_DURATION, (metrics.GROUP,), quantile=0.95),
            Panel("Broker operations, p95", metrics.OPERATION_DURATION, (metrics.OPERATION,), quantile=0.95),
            Panel("Records not committed", metrics.LAG_MESSAGES, (metrics.GROUP,), most=False),
            Panel("Events parked", metrics.PARKED, (metrics.GROUP,)),
            Panel("Readers given a new client", metrics.REPLACED, (metrics.GROUP,)),
            Panel("Documents being published", metrics.PUBLISHING, most=False),
        ),
    ),
)

CALLS: tuple[str, Sequence[Panel]] = (
    "Calls to others",
    (
        Panel("Calls by outcome", metrics.CALLS, (metrics.TIMER, metrics.OUTCOME)),
        Panel("Calls out now", metrics.IN_FLIGHT, (metrics.QUEUE, metrics.CALLEE), most=False),
        Panel("Breaker: 0 as usual, 1 deferred, 2 probing, 3 open", metrics.BREAKER, (metrics.QUEUE, metrics.CALLEE)),
        Panel("Budget left", metrics.BUDGET, (metrics.QUEUE, metrics.CALLEE), most=False),
    ),
)
MESSAGES: tuple[str, Sequence[Panel]] = (
    "Messages to people",
    (
        Panel("Deliveries by outcome", metrics.DELIVERIES, (metrics.OUTCOME,)),
        Panel("Deliveries by channel", metrics.DELIVERIES, (metrics.CHANNEL,)),
        Panel("Answers lost", metrics.DELIVERIES, (metrics.CHANNEL,), where='carerelay_outcome="unknown"'),
    ),
)
OWN: dict[str, Sequence[tuple[str, Sequence[Panel]]]] = {
    WHOLE: (MESSAGES, CALLS),
    "notifications": (MESSAGES, CALLS),
    "prior_authorization": (CALLS,),
}
"""What not every service has."""


def dashboards() -> dict[str, str]:
    """The JSON of each dashboard by its file's name."""
    names = [WHOLE, *SERVICES]
    return {f"{name}.json": _text(name) for name in names}


def rows_of(name: str) -> list[tuple[str, Sequence[Panel]]]:
    """The rows of a dashboard."""
    return [*ROWS, *OWN.get(name, ())]


def job_of(name: str) -> str:
    """What selects the services that a dashboard is about."""
    return 'job=~"carerelay/.*"' if name == WHOLE else f'job="carerelay/{name}"'


def _text(name: str) -> str:
    title = "CareRelay" if name == WHOLE else f"CareRelay: {name.replace('_', ' ')}"
    made = (
        dashboard.Dashboard(title)
        .uid(name.replace("_", "-"))
        .description("Written by python -m deploy.observability; change that, not this.")
        .tags(["carerelay"])
        .timezone("utc")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(
            dashboard.DashboardLink("CareRelay")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["carerelay"])
            .as_dropdown(True)
        )
    )
    numbers = count(1)
    for title, panels in rows_of(name):
        made = made.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_graph(panel, job_of(name)).id(next(numbers)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _graph(panel: Panel, job: str) -> timeseries.Panel:
    legend = " ".join("{{" + prometheus_label(name) + "}}" for name in panel.by) or panel.title
    source = DataSourceRef(type_val="prometheus", uid="${datasource}")
    return (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.metric.description)
        .datasource(source)
        .unit(panel.unit)
        .min(0)
        .span(8)
        .height(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .with_target(prometheus.Dataquery().ref_id("A").expr(panel.query(job)).legend_format(legend).datasource(source))
    )

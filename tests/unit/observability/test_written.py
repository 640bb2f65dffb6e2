"""Dashboards and the page of metrics are what is written from the catalogue, and dashboards are what Grafana reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.embedded.catalogue import SERVICES
from deploy.observability.__main__ import GRAFANA, ROOT, written
from deploy.observability.dashboards import Panel, rows_of
from shared.kit.metrics import CATALOGUE
from tests.unit.observability.test_rules import KNOWN, LABELS, PROMTOOL, labels_in, metrics_in, needs_promtool

BOARDS = {path.name: json.loads(text) for path, text in written().items() if path.suffix == ".json"}


def graphs(board: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels of a dashboard that are no rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """What all panels of all dashboards ask Prometheus."""
    return [target["expr"] for board in BOARDS.values() for panel in graphs(board) for target in panel["targets"]]


@pytest.mark.parametrize("path", written(), ids=lambda path: path.name)
def test_what_is_committed_is_what_would_be_written(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == written()[path], "write it anew: python -m deploy.observability"


def test_nothing_lies_beside_what_is_written() -> None:
    assert set(GRAFANA.iterdir()) == {path for path in written() if path.parent == GRAFANA}


def test_there_is_a_dashboard_for_the_whole_and_one_for_each_service() -> None:
    assert set(BOARDS) == {"carerelay.json", *(f"{service}.json" for service in SERVICES)}


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_own_model_reads_a_dashboard_and_writes_it_back_the_same(name: str) -> None:
    read = Dashboard.from_json(BOARDS[name])
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == BOARDS[name]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_ids_of_their_own_a_place_and_a_source_that_is_chosen(name: str) -> None:
    board = BOARDS[name]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert 0 not in ids
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
    assert {panel["datasource"]["uid"] for panel in graphs(board)} == {"${datasource}"}
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]


def test_panels_ask_for_metrics_and_labels_that_there_are() -> None:
    for query in queries():
        assert metrics_in(query) <= KNOWN, query
        assert labels_in(query) <= LABELS, query


def test_a_panel_adds_up_by_attributes_that_its_metric_has() -> None:
    panels: list[Panel] = [panel for name in SERVICES for _, some in rows_of(name) for panel in some]
    assert [panel for panel in panels if not set(panel.by) <= set(panel.metric.attributes)] == []


def test_every_metric_is_shown_on_the_dashboard_of_the_whole() -> None:
    shown = {panel.metric.name for _, panels in rows_of("carerelay") for panel in panels}
    assert shown == {metric.name for metric in CATALOGUE}


@needs_promtool
def test_promtool_reads_every_query(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    rules = [
        {"record": f"carerelay:query:{n}", "expr": query.replace("$__rate_interval", "5m")}
        for n, query in enumerate(queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}), encoding="utf-8")
    ran = subprocess.run([PROMTOOL, "check", "rules", path], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_page_names_every_metric() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert all(f"| `{metric.name}` |" in page for metric in CATALOGUE)

"""Prometheus rules ask for metrics that there are, each alert says what to do, and promtool's tests of them pass."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.kit.metrics import CATALOGUE, prometheus_label, prometheus_series

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "observability" / "prometheus"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool here (Debian: prometheus)")

KNOWN = {name for metric in CATALOGUE for name in prometheus_series(metric)}
LABELS = {prometheus_label(name) for metric in CATALOGUE for name in metric.attributes} | {"job", "instance", "le"}
NAME = re.compile(r"\b(?:carerelay|messaging_client|messaging_process|http_server)[a-z0-9_]*(?::[a-z0-9_]+)*")
BRACES = re.compile(r"\{[^}]*\}")
BY = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def rules(name: str) -> list[dict[str, Any]]:
    """The rules of a file."""
    groups = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDED = {rule["record"] for rule in rules("recording.yml")}
ALERTS = rules("alerts.yml")


def metrics_in(query: str) -> set[str]:
    """The metrics that a query asks for: names outside braces and lists of labels."""
    return set(NAME.findall(BY.sub("", BRACES.sub("", query))))


def labels_in(query: str) -> set[str]:
    """The labels that a query selects or adds up by."""
    selected = (re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces) for braces in BRACES.findall(query))
    listed = (re.findall(r"\w+", found) for found in BY.findall(query))
    return {label for found in (*selected, *listed) for label in found}


@pytest.mark.parametrize(
    "rule", [*rules("recording.yml"), *ALERTS], ids=lambda rule: rule.get("record", rule.get("alert"))
)
def test_a_rule_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    assert metrics_in(rule["expr"])
    assert metrics_in(rule["expr"]) <= KNOWN | RECORDED
    assert labels_in(rule["expr"]) <= LABELS


def test_a_query_that_asks_for_something_else_would_be_found() -> None:
    query = (
        'sum by (job, nobody) (rate(carerelay_made_up_total{carerelay_strange="x"}[5m])) > carerelay:lag_seconds:max'
    )
    assert metrics_in(query) == {"carerelay_made_up_total", "carerelay:lag_seconds:max"}
    assert labels_in(query) == {"job", "nobody", "carerelay_strange"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_where_its_paragraph_stands(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
    paragraph = OPERATIONS.partition(f"\n### {alert['alert']}\n")[2].partition("\n#")[0]
    assert len(paragraph.split()) > 20, "what it means, and what to do"


def test_no_paragraph_is_about_an_alert_that_there_is_not() -> None:
    told = re.findall(r"^### (CareRelay\w+)$", OPERATIONS, re.MULTILINE)
    assert told == [alert["alert"] for alert in ALERTS]


def fired() -> set[str]:
    """The alerts that promtool's tests name."""
    return set(re.findall(r'alertname(?:: |=")(\w+)', (RULES / "tests.yml").read_text(encoding="utf-8")))


def test_every_alert_is_tested() -> None:
    assert fired() == {alert["alert"] for alert in ALERTS}


@needs_promtool
def test_promtool_finds_no_fault_in_the_rules() -> None:
    assert PROMTOOL is not None
    subprocess.run([PROMTOOL, "check", "rules", RULES / "recording.yml", RULES / "alerts.yml"], check=True)


@needs_promtool
def test_every_alert_fires_for_what_it_is_about_and_for_nothing_else() -> None:
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, "test", "rules", "tests.yml"], cwd=RULES, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr

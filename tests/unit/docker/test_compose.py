"""``compose.yaml`` held against the Compose schema and against what the services declare; no engine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.docker import compose
from deploy.docker.prepare import users_of
from deploy.docker.roles import PROCESSES, container_of
from deploy.native.artifacts import kafka_version
from deploy.roles import Role, all_roles, settings_of
from tests.conftest import ROOT

Service = dict[str, Any]

DECLARED: tuple[Role, ...] = all_roles()

OUTSIDE = {"prepare", "outside", "demo"}
"""Ours, and no service: they share an image."""

FROM_ELSEWHERE = {"kafka", "mongo", "otel-collector", "jaeger", "prometheus", "grafana"}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return compose.read({})


@pytest.fixture(scope="module")
def services(whole: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = whole["services"]
    return found


@pytest.fixture(scope="module")
def roles(services: dict[str, Service]) -> dict[str, Service]:
    """The containers of the services' roles."""
    return {name: each for name, each in services.items() if name not in OUTSIDE | FROM_ELSEWHERE}


def valid(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_is_valid_by_the_compose_schema() -> None:
    checked = valid(compose.FILE)
    assert checked.returncode == 0, checked.stdout


def test_the_schema_would_tell_of_a_mistake(tmp_path: Path) -> None:
    damaged = tmp_path / "compose.yaml"
    damaged.write_text(compose.FILE.read_text().replace("read_only: true", "readonly: true", 1))
    assert valid(damaged).returncode == 1


def test_compose_itself_takes_it() -> None:
    itself = [shutil.which("docker") or "", "compose"]
    if not itself[0] or subprocess.run([*itself, "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker's compose plugin is not installed")
    command = [*itself, "config", "--quiet"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_our_reading_is_composes_own() -> None:
    environment = {"SET": "s", "EMPTY": ""}
    for text, meant in {
        "${SET:-d} ${EMPTY:-d} ${NONE:-d}": "s d d",
        "${SET-d} ${EMPTY-d} ${NONE-d}": "s  d",
        "${SET:+i} ${EMPTY:+i} ${EMPTY+i} ${NONE+i}": "i  i ",
        "${NONE:-${SET:+http://x:1}} ${NONE}": "http://x:1 ",
        "$$HOME {payer_id}": "$HOME {payer_id}",
    }.items():
        assert compose.interpolated(text, environment) == meant


def test_every_role_of_every_service_is_a_container_and_nothing_else_is(roles: dict[str, Service]) -> None:
    declared = {role.process: role for role in DECLARED}
    assert set(roles) == set(declared)
    for name, role in declared.items():
        image = f"carerelay/{role.service.replace('_', '-')}:dev"
        assert (roles[name]["image"], roles[name]["command"]) == (image, [role.name])


def test_the_table_that_images_carry_says_what_the_services_declare() -> None:
    declared = defaultdict(set)
    for role in DECLARED:
        declared[role.service].add(role.name)
        assert container_of(role.service, role.name) == role.process
    assert {service: set(names) for service, names in PROCESSES.items()} == declared


def test_each_image_is_built_once_from_its_own_service(roles: dict[str, Service]) -> None:
    built = {name: each["build"]["args"]["SERVICE"] for name, each in roles.items() if "build" in each}
    assert built == {container_of(service, "api"): service for service in PROCESSES}


def test_each_service_has_a_database_and_a_user_of_its_own(services: dict[str, Service]) -> None:
    prepared = users_of(services["prepare"]["environment"])
    for role in DECLARED:
        uri = services[role.process]["environment"]["MONGODB_URI"]
        assert uri == f"mongodb://{role.service}:{prepared[role.service]}@mongo:27017/{role.service}"
    assert len(set(prepared.values())) == len(PROCESSES)


def test_every_variable_is_one_that_some_service_reads(roles: dict[str, Service]) -> None:
    known = {field.upper() for service in PROCESSES for field in settings_of(service).model_fields}
    assert {name for each in roles.values() for name in each["environment"]} <= known


def test_a_service_takes_what_compose_gives_it(roles: dict[str, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    for role in DECLARED:
        with monkeypatch.context() as patch:
            for name, value in roles[role.process]["environment"].items():
                patch.setenv(name, "" if value is None else str(value))
            settings = settings_of(role.service)()
        assert settings.otel_exporter_otlp_endpoint is None, "nobody listens without the profile"
        assert settings.kafka_idempotence


@pytest.mark.parametrize("environment", [{"COMPOSE_PROFILES": "observability"}, {}], ids=["chosen", "not chosen"])
def test_services_export_where_somebody_listens(environment: dict[str, str]) -> None:
    services = compose.read(environment)["services"]
    told = services["referrals-jobs"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert (told or None) == ("http://otel-collector:4318" if environment else None)


def test_what_is_ours_runs_without_rights_and_writes_nowhere(services: dict[str, Service]) -> None:
    for name, each in services.items():
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        if name not in FROM_ELSEWHERE:
            assert each["read_only"] is True, name
            assert each["user"] == "10001:10001", name
            assert each["tmpfs"] == ["/tmp"], name  # noqa: S108 - in a container of its own


def test_every_role_scales(roles: dict[str, Service]) -> None:
    for name, each in roles.items():
        assert "container_name" not in each, name
        assert not any("published" in port for port in each.get("ports", ())), name


def test_roles_start_when_what_they_need_is_there_and_say_when_they_are_ready(roles: dict[str, Service]) -> None:
    for name, each in roles.items():
        conditions = {other: needed["condition"] for other, needed in each["depends_on"].items()}
        assert conditions == {
            "kafka": "service_healthy",
            "prepare": "service_completed_successfully",
            "outside": "service_healthy",
        }, name
        assert each["healthcheck"]["test"][-1] == "/health/ready", name


def test_core_needs_no_profile_and_nothing_of_a_profile(services: dict[str, Service]) -> None:
    core = {name for name, each in services.items() if not each.get("profiles")}
    assert {each["profiles"][0] for name, each in services.items() if name not in core} == {"observability", "demo"}
    needed = {other for name in core for other in services[name].get("depends_on", ())}
    assert needed <= core


def test_images_from_elsewhere_are_variables_with_a_pinned_default() -> None:
    written = yaml.safe_load(compose.FILE.read_text())["services"]
    for name in FROM_ELSEWHERE:
        assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-[a-z/-]+:v?[\d.]+[\w.-]*\}", written[name]["image"]), name
    assert written["kafka"]["image"].endswith(f":{kafka_version()}}}"), "the native stack's Kafka"


def test_files_that_are_mounted_are_there(whole: dict[str, Any]) -> None:
    for kind in ("configs", "secrets"):
        for each in whole[kind].values():
            assert (ROOT / each["file"]).is_file(), each["file"]
    mounted = [volume for each in whole["services"].values() for volume in each.get("volumes", ())]
    for volume in mounted:
        source = volume.partition(":")[0]
        there = (ROOT / source).is_dir() if source.startswith(".") else source in whole["volumes"]
        assert there, volume


@pytest.mark.parametrize("name", ["otel-collector.yaml", "prometheus.yaml", "grafana/sources.yaml"])
def test_addresses_among_the_signals_are_those_of_compose(services: dict[str, Service], name: str) -> None:
    text = (ROOT / "deploy" / "docker" / name).read_text()
    named = set(re.findall(r"(?:http://|targets: \[\"|endpoint: )([a-z][a-z-]+):\d+", text))
    assert named
    assert named <= set(services)


def test_prometheus_takes_its_configuration_and_finds_the_rules() -> None:
    file = ROOT / "deploy" / "docker" / "prometheus.yaml"
    rules = [Path(rule) for rule in yaml.safe_load(file.read_text())["rule_files"]]
    assert {rule.name for rule in rules} == {"recording.yml", "alerts.yml"}
    assert all((ROOT / "deploy" / "observability" / "prometheus" / rule.name).is_file() for rule in rules)
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH")
    command = [promtool, "check", "config", "--syntax-only", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr

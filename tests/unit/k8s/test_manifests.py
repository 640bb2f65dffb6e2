"""The manifests say what the code does, are valid, and hold what is promised of every process."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
from pydantic import SecretStr

from deploy.embedded.catalogue import SERVICES
from deploy.k8s.__main__ import FOLDER, made
from deploy.k8s.manifests import EVENTS, REQUESTS, TIME, work
from deploy.roles import all_roles, declared, roles_of, secrets_of, settings_of
from shared.kit.service import ALL
from shared.kit.testing.harness import Harness
from tests.contract.services import WIRING
from tests.unit.k8s.overlays import OVERLAYS, Manifest, built, files, of_kind, ours, settings, whole

VERSIONS = ("1.30", "1.37")
STORE = "mongodb://store.example:27017"
"""The oldest Kubernetes that has all that is used here (``preStop.sleep``), and the newest that is known."""

KEDA = json.loads(Path(__file__).with_name("keda.json").read_text(encoding="utf-8"))

ROLES = {role.process: role for role in all_roles()}


def valid(manifest: Manifest, version: str) -> None:
    if manifest["kind"] == "ScaledObject":
        jsonschema.validate(manifest, SCALED)
        for trigger in manifest["spec"]["triggers"]:
            triggered(trigger)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def triggered(trigger: dict[str, Any]) -> None:
    """A trigger has the parameters that its scaler knows, and all that this one needs."""
    known = KEDA["triggers"][trigger["type"]]
    given = {name.removesuffix("FromEnv"): name for name in trigger["metadata"]}
    for name, as_given in given.items():
        assert name in known, f"{trigger['type']} knows no {name}"
        assert name == as_given or known[name].get("envVariableReadable"), f"{name} is not read from an environment"
        assert "deprecated" not in known[name]
        if name == as_given and "allowedValue" in known[name]:
            assert trigger["metadata"][name] in known[name]["allowedValue"]
    needed = {name for name, about in known.items() if not about.get("optional") and "default" not in about}
    assert needed <= set(given), f"{trigger['type']} needs {needed - set(given)}"


def _strict(schema: Any) -> Any:
    """The schema, refusing what it does not name: the server would drop it in silence."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _strict(each) for name, each in schema.items()}
    if "properties" in made and made.get("type") == "object" and made["properties"]:
        made.setdefault("additionalProperties", False)
    return made


SCALED = _strict(KEDA["scaledObject"])


# -- what the code does -----------------------------------------------------------------------------------------


def test_what_is_committed_is_what_the_services_declare() -> None:
    for path, text in made().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python -m deploy.k8s"


@pytest.mark.parametrize("service", SERVICES)
def test_the_roles_of_a_service_do_all_that_it_does_and_nothing_twice(service: str) -> None:
    declaration = declared(service)
    parts = [declaration.part(role.name) for role in roles_of(declaration)]
    everything = declaration.part(ALL)
    assert [part.api for part in parts].count(True) == 1
    for kind in ("reactions", "queues", "performing"):
        done = [each for part in parts for each in getattr(part, kind)]
        assert sorted(done) == sorted(getattr(everything, kind)), kind


@pytest.mark.parametrize("service", SERVICES)
def test_a_role_scales_by_the_consumer_groups_that_its_processes_join(service: str) -> None:
    module = WIRING[service]
    readers = Harness(module.Settings, module.build).chassis.all_readers
    joined = {(reader.group, reader.topics) for reader in readers}
    assert joined == {(reads.group, reads.topics) for role in roles_of(declared(service)) for reads in role.reads}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_role_is_one_deployment_with_one_disruption_budget(overlay: str) -> None:
    manifests = built(overlay)
    deployments, budgets = ours(manifests, "Deployment"), ours(manifests, "PodDisruptionBudget")
    assert set(deployments) == set(budgets) == set(ROLES)
    selectors = []
    for name, deployment in deployments.items():
        template = deployment["spec"]["template"]
        assert template["spec"]["containers"][0]["args"] == [ROLES[name].name]
        selector = deployment["spec"]["selector"]
        assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert budgets[name]["spec"]["selector"] == selector
        selectors.append(selector)
    assert all(selectors.count(selector) == 1 for selector in selectors), "two roles would share their processes"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_api_has_a_door_to_its_processes_alone(overlay: str) -> None:
    manifests = built(overlay)
    doors = ours(manifests, "Service")
    assert set(doors) == {service.replace("_", "-") for service in SERVICES}
    for service, door in doors.items():
        behind = [
            name
            for name, each in ours(manifests, "Deployment").items()
            if door["spec"]["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert behind == [f"{service}-api"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_process_gets_settings_that_its_service_has_and_can_start_with(overlay: str) -> None:
    manifests = built(overlay)
    maps = {each["metadata"]["name"]: each.get("data") or {} for each in of_kind(manifests, "ConfigMap")}
    for name, deployment in ours(manifests, "Deployment").items():
        service = ROLES[name].service
        known = settings_of(service)
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        given = {k: v for source in container["envFrom"] for k, v in maps[source["configMapRef"]["name"]].items()}
        assert not given.keys() & secrets_of(service).keys(), "a secret is no ConfigMap's"
        for entry in container["env"]:
            assert entry["name"].lower() in known.model_fields, "nobody reads this"
            if not _may_be_absent(entry):
                given[entry["name"]] = entry.get("value") or _by_default(service, entry["name"]) or STORE
        fields = {variable.lower(): value for variable, value in given.items()}
        assert fields.keys() <= known.model_fields.keys(), "nobody reads this"
        known.model_validate_strings(fields)


def _may_be_absent(entry: Manifest) -> bool:
    return bool(entry.get("valueFrom", {}).get("secretKeyRef", {}).get("optional"))


# -- what is valid ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overlay", "version"), [("dev", VERSIONS[-1]), *(("prod", each) for each in VERSIONS)])
def test_everything_in_an_overlay_is_valid(overlay: str, version: str) -> None:
    for manifest in built(overlay):
        valid(manifest, version)


def test_what_is_whole_without_kustomize_is_valid() -> None:
    checked = [manifest for path in files() for manifest in whole(path)]
    assert len(checked) > 3 * len(ROLES)
    for manifest in checked:
        valid(manifest, VERSIONS[-1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"maxReplicas": 3}, "maxReplicas"),
        ({"triggers": [{"type": "kafka", "metadata": {"consumerGroup": "a"}}]}, "bootstrapServers"),
        ({"triggers": [{"type": "prometheus", "metadata": {"adress": "a"}}]}, "adress"),
    ],
)
def test_what_keda_would_drop_or_miss_is_found(change: dict[str, Any], told: str) -> None:
    spec = {"scaleTargetRef": {"name": "a"}, "triggers": [], **change}
    manifest = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "a"}, "spec": spec}
    with pytest.raises((AssertionError, jsonschema.ValidationError), match=told):
        valid(manifest, VERSIONS[-1])


# -- what is promised -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_process_is_unprivileged_probed_bounded_and_spread(overlay: str) -> None:
    for name, deployment in ours(built(overlay), "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        context = {**pod["securityContext"], **container["securityContext"]}
        assert context["runAsNonRoot"]
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False
        probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
        assert probes == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}
        spread = {each["topologyKey"] for each in pod["topologySpreadConstraints"]}
        assert spread == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_process_that_is_told_to_go_has_the_time_to_finish(overlay: str) -> None:
    manifests = built(overlay)
    drain = float(settings(manifests, "platform")["DRAIN_SECONDS"])
    for name, deployment in ours(manifests, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        leaving = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert (leaving > 0) == (work(ROLES[name]) == REQUESTS)
        assert leaving + drain + 10 <= pod["terminationGracePeriodSeconds"] <= leaving + 2 * drain


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_release_never_makes_more_consumers_than_there_were_and_always_keeps_an_api(overlay: str) -> None:
    for name, deployment in ours(built(overlay), "Deployment").items():
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        if work(ROLES[name]) == EVENTS:
            assert rolling["maxSurge"] == 0
        else:
            assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


def test_every_role_scales_by_its_own_work_within_its_bounds() -> None:
    manifests = built("prod")
    partitions = int(settings(manifests, "platform")["KAFKA_PARTITIONS"])
    scaled = ours(manifests, "ScaledObject")
    assert set(scaled) == set(ROLES)
    for name, manifest in scaled.items():
        role, spec = ROLES[name], manifest["spec"]
        assert spec["scaleTargetRef"]["name"] == name
        assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert min(spec["cooldownPeriod"], down["stabilizationWindowSeconds"]) >= 600, "groups would not come to rest"
        triggers = spec["triggers"]
        if work(role) == EVENTS:
            assert spec["maxReplicaCount"] <= partitions
            read = {(each["metadata"]["consumerGroup"], each["metadata"]["topic"]) for each in triggers}
            assert read == {(reads.group, topic) for reads in role.reads for topic in reads.topics}
            assert {each["metadata"]["allowIdleConsumers"] for each in triggers} == {"false"}
            assert {each["metadata"]["offsetResetPolicy"] for each in triggers} == {"earliest"}, "as the bus does"
        if work(role) == TIME:
            (query,) = [each["metadata"]["query"] for each in triggers]
            assert query.startswith("max(carerelay_due_age_seconds{carerelay_queue=~"), "as docs/metrics.md names it"
            assert all(queue.replace(".", "[.]") in query for queue in role.queues)


def test_the_autoscaler_alone_says_how_many_processes_there_are() -> None:
    assert not [name for name, each in ours(built("prod"), "Deployment").items() if "replicas" in each["spec"]]


def test_there_are_no_secrets_in_the_tree() -> None:
    assert not of_kind(built("prod"), "Secret")
    for secret in of_kind(built("dev"), "Secret"):
        for name, value in _plain(secret).items():
            if name == "MONGODB_URI":
                assert urlsplit(value).password is None
            else:
                service = secret["metadata"]["name"].partition("-secrets")[0].replace("-", "_")
                assert value == _by_default(service, name), "development has what the code has by default"


def test_every_image_of_a_release_has_a_tag_that_somebody_chose() -> None:
    for overlay in OVERLAYS:
        for deployment in of_kind(built(overlay), "Deployment"):
            for container in deployment["spec"]["template"]["spec"]["containers"]:
                _, _, tag = container["image"].rpartition("/")[2].partition(":")
                assert tag not in {"", "latest"}, container["image"]


def test_every_file_is_used() -> None:
    used = {FOLDER / "base" / "kustomization.yaml", *(FOLDER / "overlays" / o / "kustomization.yaml" for o in OVERLAYS)}
    used.add(FOLDER / "components" / "autoscaling" / "kustomization.yaml")
    named = {path.parent / name for path in used for name in path.read_text(encoding="utf-8").split()}
    assert [path for path in files() if path not in used | named] == []


def _by_default(service: str, secret: str) -> str | None:
    """What a secret of a service is where nobody says."""
    default = settings_of(service).model_fields[secret.lower()].default
    return default.get_secret_value() if isinstance(default, SecretStr) else None


def _plain(secret: Manifest) -> dict[str, str]:
    return {name: b64decode(value).decode() for name, value in secret["data"].items()}

"""What differs from role to role on Kubernetes, made from what a service declares, so that it says what the code does.

What is the same for all is written by hand: the patches beside ``base/kustomization.yaml`` and in ``components``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deploy.roles import Role, secrets_of
from shared.kit.metrics import DUE_AGE, QUEUE, prometheus_label, prometheus_name
from shared.kit.service import API

Manifest = dict[str, Any]

NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"

DOMAIN = "carerelay.example"
"""The domain of CareRelay's own labels."""

CALLS = f"{DOMAIN}/calls"
WORK = f"{DOMAIN}/work"
STORE = f"store.{DOMAIN}"
"""Labels: whom a process calls outside; what it scales by; of a store's pod, one for each service whose store it is."""

REQUESTS, EVENTS, TIME = "requests", "events", "time"
"""What processes scale by: their processor, the lag of their consumer groups, how late their due work is."""

STORE_PORT = 27017

LAG_OF_REACTIONS, LAG_OF_CALLS = 2000, 500
"""How many events behind one more process is worth: a second or two of its work (docs/capacity.md)."""

LATE_SECONDS = 15
"""How late due work may be before one more process is worth it."""

BUSY = "600m"
"""How much of a processor an API may take on average: a process cannot use more than one."""

PROMETHEUS = "http://prometheus.observability.svc:9090"


def base(roles: Iterable[Role]) -> list[Manifest]:
    """One service: its account, its API's door, the way to its store; of each role a Deployment and its budget."""
    roles = tuple(roles)
    service = _name(roles[0].service)
    each = (made for role in roles for made in (_deployment(role), _budget(role)))
    return [_account(service), _door(service), _way_to_store(service), *each]


def autoscaling(roles: Iterable[Role]) -> list[Manifest]:
    """One service: a KEDA ScaledObject a role."""
    return [_scaled(role) for role in roles]


def work(role: Role) -> str:
    """What a role scales by."""
    if role.name == API:
        return REQUESTS
    return EVENTS if role.reads else TIME


def _deployment(role: Role) -> Manifest:
    service = _name(role.service)
    secrets = [_secret(service, name, needed) for name, needed in sorted(secrets_of(role.service).items())]
    container = {
        "name": "role",
        "image": f"carerelay/{service}",
        "args": [role.name],
        "envFrom": [{"configMapRef": {"name": name}} for name in ("platform", service)],
        "env": [{"name": "MONGODB_DATABASE", "value": role.service}, *secrets],
    }
    pod = {"serviceAccountName": service, "containers": [container]}
    spec = {
        "selector": {"matchLabels": _selector(role)},
        "template": {"metadata": {"labels": _labels(role)}, "spec": pod},
    }
    return _object("apps/v1", "Deployment", role.process, _labels(role), spec=spec)


def _secret(service: str, name: str, needed: bool) -> Manifest:
    key = {"name": f"{service}-secrets", "key": name, **({} if needed else {"optional": True})}
    return {"name": name, "valueFrom": {"secretKeyRef": key}}


def _budget(role: Role) -> Manifest:
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": _selector(role)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return _object("policy/v1", "PodDisruptionBudget", role.process, _labels(role), spec=spec)


def _account(service: str) -> Manifest:
    return _object("v1", "ServiceAccount", service, {NAME: service}, automountServiceAccountToken=False)


def _door(service: str) -> Manifest:
    labels = {NAME: service, COMPONENT: API}
    spec = {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    return _object("v1", "Service", service, labels, spec=spec)


def _way_to_store(service: str) -> Manifest:
    store = {"namespaceSelector": {}, "podSelector": {"matchLabels": {f"{STORE}/{service}": "true"}}}
    spec = {
        "podSelector": {"matchLabels": {NAME: service}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [store], "ports": [{"protocol": "TCP", "port": STORE_PORT}]}],
    }
    return _object("networking.k8s.io/v1", "NetworkPolicy", f"{service}-to-its-store", {NAME: service}, spec=spec)


def _scaled(role: Role) -> Manifest:
    triggers = {REQUESTS: _by_processor, EVENTS: _by_lag, TIME: _by_lateness}[work(role)](role)
    spec = {"scaleTargetRef": {"name": role.process}, "triggers": triggers}
    return _object("keda.sh/v1alpha1", "ScaledObject", role.process, _labels(role), spec=spec)


def _by_processor(role: Role) -> list[Manifest]:
    return [{"type": "cpu", "metricType": "AverageValue", "metadata": {"value": BUSY}}]


def _by_lag(role: Role) -> list[Manifest]:
    return [
        {
            "type": "kafka",
            "metadata": {
                "bootstrapServersFromEnv": "KAFKA_BOOTSTRAP_SERVERS",
                "consumerGroup": reads.group,
                "topic": topic,
                "lagThreshold": str(LAG_OF_CALLS if reads.performing else LAG_OF_REACTIONS),
                "offsetResetPolicy": "earliest",
                "allowIdleConsumers": "false",
            },
        }
        for reads in role.reads
        for topic in reads.topics
    ]


def _by_lateness(role: Role) -> list[Manifest]:
    queues = "|".join(f"{role.service}.{queue}".replace(".", "[.]") for queue in role.queues)
    query = f'max({prometheus_name(DUE_AGE)}{{{prometheus_label(QUEUE)}=~"{queues}"}})'
    metadata = {"serverAddress": PROMETHEUS, "query": query, "threshold": str(LATE_SECONDS)}
    # The value itself, not shared out among replicas: twice as late as it may be asks for twice the processes.
    return [{"type": "prometheus", "metricType": "Value", "metadata": metadata}]


def _object(version: str, kind: str, name: str, labels: Mapping[str, str], **rest: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": dict(labels)}, **rest}


def _selector(role: Role) -> dict[str, str]:
    return {NAME: _name(role.service), COMPONENT: role.name}


def _labels(role: Role) -> dict[str, str]:
    called = {CALLS: "true"} if role.calls else {}
    return {**_selector(role), WORK: work(role), **called}


def _name(service: str) -> str:
    return service.replace("_", "-")

"""Who reaches whom in production: each process its own store, broker, collector, issuer and names; nothing else."""

from __future__ import annotations

from functools import cache

import pytest

from deploy.k8s.manifests import NAME, STORE
from deploy.roles import Role, all_roles
from tests.unit.k8s.overlays import Manifest, built, of_kind, ours
from tests.unit.k8s.reach import Place, may

ROLES = all_roles()
SERVICES = sorted({role.service.replace("_", "-") for role in ROLES})

OURS = "carerelay"
ELSEWHERE = "elsewhere"

KAFKA = (Place.pod("kafka"), 9092)
COLLECTOR = (Place.pod("observability"), 4318)
ISSUER = (Place.pod("identity"), 8080)
NAMES = (Place("kube-system", (("k8s-app", "kube-dns"),)), 53)
PAYER = (Place(address="203.0.113.7"), 443)
PAYER_BY_IPV6 = (Place(address="2001:db8::7"), 443)
MAIL = (Place(address="203.0.113.8"), 587)

METADATA = (Place(address="169.254.169.254"), 443)
INSIDE = (Place(address="10.1.2.3"), 443)
SITE_BY_IPV6 = (Place(address="fd00::1"), 443)
IN_CLEAR = (Place(address="203.0.113.7"), 80)
KUBERNETES = (Place.pod("kube-system"), 443)


@cache
def policies() -> tuple[Manifest, ...]:
    return tuple(of_kind(built("prod"), "NetworkPolicy"))


def place(role: Role) -> Place:
    """A process of a role, as its Deployment labels it."""
    labels = ours(built("prod"), "Deployment")[role.process]["spec"]["template"]["metadata"]["labels"]
    return Place(OURS, tuple(labels.items()))


def store_of(service: str, namespace: str = "stores") -> Place:
    return Place(namespace, ((f"{STORE}/{service}", "true"),))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.process)
def test_a_process_reaches_what_it_needs_and_nothing_else(role: Role) -> None:
    one = place(role)
    own = role.service.replace("_", "-")
    for other, port in (KAFKA, COLLECTOR, ISSUER, NAMES):
        assert may(policies(), one, other, port), other
    assert may(policies(), one, *NAMES, protocol="UDP")
    for service in SERVICES:
        assert may(policies(), one, store_of(service), 27017) == (service == own), service
    for whom in (PAYER, PAYER_BY_IPV6, MAIL):
        assert may(policies(), one, *whom) == role.calls, whom
    for other, port in (METADATA, INSIDE, SITE_BY_IPV6, IN_CLEAR, KUBERNETES):
        assert not may(policies(), one, other, port), other
    assert not may(policies(), one, KAFKA[0], 22)
    assert not may(policies(), one, store_of(own), 22)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.process)
def test_an_api_is_called_from_the_ingress_and_no_process_by_anybody_else(role: Role) -> None:
    one = place(role)
    assert may(policies(), Place.pod("ingress"), one, 8000) == (role.name == "api")
    assert not may(policies(), Place.pod(ELSEWHERE), one, 8000)
    assert not any(may(policies(), place(other), one, 8000) for other in ROLES)


def test_the_roles_that_call_out_are_those_whose_code_does() -> None:
    assert sorted(role.process for role in ROLES if role.calls) == [
        "intake-jobs",
        "notifications-dispatcher",
        "notifications-planner",
        "notifications-sender-email",
        "notifications-sender-letter",
        "notifications-sender-sms",
        "notifications-sender-voice",
        "prior-authorization-poller",
        "prior-authorization-submitter",
        "webhooks-jobs",
    ]


def test_a_pod_that_nobody_named_reaches_nothing_and_is_reached_by_nobody() -> None:
    stranger = Place(OURS, ((NAME, "stranger"),))
    for other, port in (KAFKA, COLLECTOR, NAMES, PAYER):
        assert not may(policies(), stranger, other, port)
    assert not may(policies(), Place.pod("ingress"), stranger, 8000)


def test_in_development_all_speak_with_all_of_their_own_namespace() -> None:
    here = of_kind(built("dev"), "NetworkPolicy")
    one, other = Place.pod("carerelay-dev", a="b"), Place.pod("carerelay-dev", c="d")
    assert may(here, one, other, 9092)
    assert not may(here, Place.pod(ELSEWHERE), other, 9092)
    assert not may(here, one, *PAYER)

"""Whom a pod may reach, by NetworkPolicies: as the API's reference says that they add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class Place:
    """A pod by namespace and labels, or something outside of the cluster by its address."""

    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""

    @staticmethod
    def pod(namespace: str, **labels: str) -> Place:
        """A pod by labels without a prefix."""
        return Place(namespace, tuple(labels.items()))


def may(policies: Iterable[Mapping[str, Any]], one: Place, other: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether ``one`` may open a connection to ``other``: its way out and the other's way in both allow it."""
    policies = list(policies)
    return _allows(policies, "egress", one, other, port, protocol) and _allows(
        policies, "ingress", other, one, port, protocol
    )


def _allows(policies: list[Mapping[str, Any]], way: str, whose: Place, peer: Place, port: int, protocol: str) -> bool:
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == whose.namespace
        and way.capitalize() in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], dict(whose.labels))
    ]
    if not selecting or whose.address:
        return True  # who is selected by none may do everything
    return any(
        _is_peer(whose, spec_peer, peer) and _is_port(rule.get("ports"), port, protocol)
        for spec in selecting
        for rule in spec.get(way, ())
        for spec_peer in rule.get("from" if way == "ingress" else "to", [None])
    )


def _is_peer(whose: Place, rule: Mapping[str, Any] | None, peer: Place) -> bool:
    if rule is None:
        return True
    if "ipBlock" in rule:
        if not peer.address:
            return False
        address, block = ip_address(peer.address), rule["ipBlock"]
        apart = any(address in ip_network(each) for each in block.get("except", ()))
        return address in ip_network(block["cidr"]) and not apart
    if peer.address:
        return False
    in_namespace = (
        _selects(rule["namespaceSelector"], {NAME_OF_NAMESPACE: peer.namespace})
        if "namespaceSelector" in rule
        else peer.namespace == whose.namespace
    )
    return in_namespace and _selects(rule.get("podSelector", {}), dict(peer.labels))


def _is_port(ports: list[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    if ports is None:
        return True
    return any(each.get("protocol", "TCP") == protocol and each.get("port", port) == port for each in ports)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "only labels are understood here"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())

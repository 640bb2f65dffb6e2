"""Which processes each service is run as in containers, one image and a container a role.

Static, because the image that reads it holds no service's code; ``tests/unit/deploy/test_compose.py`` holds it, and
``compose.yaml``, against what the services declare.
"""

from __future__ import annotations

from collections.abc import Mapping

PROCESSES: Mapping[str, tuple[str, ...]] = {
    "intake": ("api", "reactions", "jobs"),
    "referrals": ("api", "reactions", "jobs"),
    "prior_authorization": ("api", "reactions", "submitter", "poller"),
    "scheduling": ("api", "reactions", "jobs"),
    "notifications": (
        "api",
        "planner",
        "dispatcher",
        "sender-sms",
        "sender-voice",
        "sender-email",
        "sender-letter",
    ),
    "directory": ("api", "reactions", "jobs"),
    "webhooks": ("api", "reactions", "jobs"),
}
"""The roles that together do all of a service's work, none of it twice."""


def container_of(service: str, role: str) -> str:
    """What compose calls the containers of a role, and the name they are found by."""
    return f"{service.replace('_', '-')}-{role}"

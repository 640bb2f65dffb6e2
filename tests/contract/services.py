"""The services as they are declared, for tests that look at every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import httpx

from services.directory import service as directory
from services.intake import service as intake
from services.notifications import service as notifications
from services.prior_authorization import service as prior_authorization
from services.referrals import service as referrals
from services.scheduling import service as scheduling
from services.webhooks import service as webhooks
from shared.kit.reactions import Reactions
from shared.kit.service import Service

WIRING: Mapping[str, ModuleType] = {
    "directory": directory,
    "intake": intake,
    "notifications": notifications,
    "prior_authorization": prior_authorization,
    "referrals": referrals,
    "scheduling": scheduling,
    "webhooks": webhooks,
}


def _nobody(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody is there", request=request)


def declared(name: str) -> Service:
    """One service, wired to an outside where nobody answers."""
    module = WIRING[name]
    service: Service = module.build(module.Settings(), httpx.AsyncClient(transport=httpx.MockTransport(_nobody)))
    return service


def tables() -> list[tuple[str, Reactions]]:
    """Every reaction table: the service's name, and the table of one document type."""
    return [(name, table) for name in WIRING for table in declared(name).reactions]

"""The Subscription that we register at a payer: rest-hook, full resource, for all that our organization sends it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from services.prior_authorization.pas import codes
from services.prior_authorization.pas.fhir import Resource
from shared.kit.shown import instant

PROOF_HEADER = "X-Subscription-Secret"
"""Carries a subscription's secret with each notification (FHIR R4: Subscription.channel.header)."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of subscriptions, kept nowhere: each follows from ``key`` and its subscription's end, and is another
    after a renewal. ``wanted`` says which payers send theirs along."""

    key: bytes
    wanted: Callable[[str], bool]

    def of(self, payer_id: str, until: datetime) -> str:
        """The secret of the subscription at a payer that ends then."""
        named = f"subscription|{payer_id}|{instant(until)}".encode()
        return hmac.new(self.key, named, hashlib.sha256).hexdigest()

    def proves(self, payer_id: str, given: str | None, ends: Iterable[datetime | None]) -> bool:
        """Whether what came along is the secret of the subscription that ends at one of these times."""
        known = [self.of(payer_id, until) for until in ends if until is not None]
        return any(hmac.compare_digest((given or "").encode(), each.encode()) for each in known)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where payers notify us: ``url`` with ``{payer_id}`` in it; ``npi`` is the sending organization's."""

    url: str
    npi: str
    secrets: Secrets | None = None

    def endpoint(self, payer_id: str) -> str:
        """Where one payer does."""
        return self.url.replace("{payer_id}", payer_id)


def subscription(listener: Listener, payer_id: str, until: datetime, reference: str | None = None) -> Resource:
    """The resource (profile-subscription); with the payer's id of it where it is renewed.

    It is made for the sending system, not for one request: the filter is the organization's identifier.
    """
    content = {"url": codes.PAYLOAD_CONTENT, "valueCode": "full-resource"}
    by_sender = {"url": codes.FILTER_CRITERIA, "valueString": f"org-identifier={listener.npi}"}
    channel: Resource = {
        "type": "rest-hook",
        "endpoint": listener.endpoint(payer_id),
        "payload": "application/fhir+json",
        "_payload": {"extension": [content]},
    }
    asked: Resource = {
        "resourceType": "Subscription",
        "meta": {"profile": [codes.SUBSCRIPTION]},
        "status": "requested",
        "end": instant(until),
        "reason": "Decisions on the prior authorizations that this organization asked for",
        "criteria": codes.TOPIC,
        "_criteria": {"extension": [by_sender]},
        "channel": channel,
    }
    secrets = listener.secrets
    if secrets is not None and secrets.wanted(payer_id):
        channel["header"] = [f"{PROOF_HEADER}: {secrets.of(payer_id, until)}"]
    return asked if reference is None else {**asked, "id": reference}

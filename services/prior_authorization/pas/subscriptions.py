"""The Subscription that we register at a payer: rest-hook, full resource, for all that our organization sends it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.prior_authorization.pas import codes
from services.prior_authorization.pas.fhir import Resource
from shared.kit.shown import instant


@dataclass(frozen=True, slots=True)
class Listener:
    """Where payers notify us: ``url`` with ``{payer_id}`` in it; ``npi`` is the sending organization's."""

    url: str
    npi: str

    def endpoint(self, payer_id: str) -> str:
        """Where one payer does."""
        return self.url.replace("{payer_id}", payer_id)


def subscription(listener: Listener, payer_id: str, until: datetime, reference: str | None = None) -> Resource:
    """The resource (profile-subscription); with the payer's id of it where it is renewed.

    It is made for the sending system, not for one request: the filter is the organization's identifier.
    """
    content = {"url": codes.PAYLOAD_CONTENT, "valueCode": "full-resource"}
    by_sender = {"url": codes.FILTER_CRITERIA, "valueString": f"org-identifier={listener.npi}"}
    asked: Resource = {
        "resourceType": "Subscription",
        "meta": {"profile": [codes.SUBSCRIPTION]},
        "status": "requested",
        "end": instant(until),
        "reason": "Decisions on the prior authorizations that this organization asked for",
        "criteria": codes.TOPIC,
        "_criteria": {"extension": [by_sender]},
        "channel": {
            "type": "rest-hook",
            "endpoint": listener.endpoint(payer_id),
            "payload": "application/fhir+json",
            "_payload": {"extension": [content]},
        },
    }
    return asked if reference is None else {**asked, "id": reference}

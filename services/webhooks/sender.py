"""Sends one event to one endpoint, signed as Standard Webhooks says, and tells honestly how that ended.

The body is the event as a CloudEvent in structured JSON mode, the same at every try but for nothing; the signature
covers its id, the time of this try and the body (Standard Webhooks 1.0.0, "Verifying signatures").
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import httpx
from standardwebhooks.webhooks import Webhook

from services.webhooks.model.endpoint import Endpoint, Secret
from services.webhooks.model.feed import Declined, Feed, Outcome, Taken
from services.webhooks.model.stream import Kept, Stream
from shared.kit.bus.envelope import schema_uri
from shared.kit.clock import SystemClock
from shared.kit.decisions import Facts, Refused, Unanswered
from shared.kit.document import Attempt
from shared.kit.outside import ask
from shared.kit.shown import instant

SECONDS = 15.0
"""How long an endpoint may take to answer, all in all."""

_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Keys:
    """What secrets are derived from, by name; ``current`` names the one for new secrets.

    A secret is HMAC-SHA256 of endpoint and number under its key. It is stored nowhere: whoever holds the store holds no
    secret. A key may leave once no secret is derived from it any more.
    """

    keys: Mapping[str, bytes]
    current: str

    def secret(self, endpoint_id: str, secret: Secret) -> bytes:
        """The 32 bytes of a secret. Raises KeyError where its key has left."""
        told = f"carerelay webhook\x1f{endpoint_id}\x1f{secret.number}".encode()
        return hmac.digest(self.keys[secret.key], told, "sha256")

    def shown(self, endpoint_id: str, secret: Secret) -> str:
        """A secret as its owner is shown it, once: ``whsec_`` and base64."""
        return _PREFIX + base64.b64encode(self.secret(endpoint_id, secret)).decode()


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends events to endpoints.

    ``http`` is guarded: it reaches public addresses alone. ``real`` is the machine's time, by which receivers judge how
    old a signature is.
    """

    http: httpx.AsyncClient
    keys: Keys
    real: Callable[[], datetime] = SystemClock().real

    async def send(self, feed: Feed, attempt: Attempt, facts: Facts) -> Outcome:
        """Send the event that the feed is at."""
        endpoint, stream = facts.get(Endpoint, feed.endpoint_id), facts.get(Stream, feed.stream_id)
        kept = stream.at(feed.sending) if stream is not None and feed.sending is not None else None
        if endpoint is None or stream is None or kept is None:
            return Refused("not-kept")
        body = cloud_event(stream, kept)
        at = self.real()
        held = [self.keys.secret(endpoint.id, secret) for secret in endpoint.secrets if secret.holds(attempt.since)]
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": "CareRelay-Webhooks/1",
            **signed(held, kept.id, at, body),
        }
        try:
            async with asyncio.timeout(SECONDS):
                answer = await ask(
                    self.http, "POST", endpoint.url, content=body.encode(), headers=headers, timeout=SECONDS
                )
        except TimeoutError:
            return Unanswered("timeout")
        return _understood(answer)


def cloud_event(stream: Stream, kept: Kept) -> str:
    """The event in structured JSON mode (CloudEvents JSON format 1.0); its data is the text that was published."""
    attributes = {
        "specversion": "1.0",
        "id": kept.id,
        "source": f"/carerelay/{stream.topic.partition('.')[0]}",
        "type": kept.type,
        "subject": stream.subject,
        "time": instant(kept.time),
        "sequence": str(kept.sequence),
        "dataschema": schema_uri(kept.type),
        "datacontenttype": "application/json",
    }
    return f'{json.dumps(attributes)[:-1]}, "data": {kept.data}}}'


def signed(secrets: Sequence[bytes], id: str, at: datetime, body: str) -> dict[str, str]:
    """The three headers of Standard Webhooks; while secrets overlap there is a signature by each."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(id, at, body) for secret in secrets),
    }


def _understood(answer: httpx.Response | Refused | Unanswered) -> Outcome:
    if isinstance(answer, Refused | Unanswered):
        return answer
    if answer.is_success:
        return Taken()
    return Declined(f"status-{answer.status_code}", gone=answer.status_code == HTTPStatus.GONE)

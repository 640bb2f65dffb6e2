"""Wires webhooks together."""

from __future__ import annotations

from typing import Annotated

import httpx
from pydantic import AfterValidator, Field, SecretStr

from services.webhooks.api import routes
from services.webhooks.jobs import jobs
from services.webhooks.model import Endpoint, Feed, Stream
from services.webhooks.reactions import REACTIONS
from services.webhooks.sender import Keys, Sender
from shared.kit.service import Service
from shared.kit.settings import KitSettings

SHORTEST = 32
"""Characters of a key: as many as the bytes that are made with it."""


def keys_of(text: SecretStr) -> Keys:
    """The keys that a setting names. Raises ValueError, which tells none of them, where it cannot be read."""
    keys: dict[str, bytes] = {}
    for part in text.get_secret_value().split(","):
        name, colon, key = part.strip().partition(":")
        if not name or not colon or name in keys:
            raise ValueError("is not a list of keys, each with a name of its own: name:key,name:key")
        if len(key) < SHORTEST:
            raise ValueError(f"has a key of less than {SHORTEST} characters")
        keys[name] = key.encode()
    return Keys(keys, next(iter(keys)))


def _readable(text: SecretStr) -> SecretStr:
    keys_of(text)
    return text


class Settings(KitSettings):
    """What webhooks needs beside the kit's settings; environment variables named as the fields in capitals."""

    outside_public_only: bool = Field(True, description="endpoints on addresses that are not public are not called")
    webhook_keys: Annotated[SecretStr, AfterValidator(_readable)] = Field(
        SecretStr("development:only-this-and-secret-from-nobody"),
        description="what secrets are derived from, name:key,name:key; new ones from the first; kept secret",
    )
    webhook_plain_http: bool = Field(False, description="take http and local addresses too; for tests on one machine")
    webhooks_per_second: float = Field(50.0, gt=0, description="events a second to one endpoint at most")
    webhooks_at_once: int = Field(8, ge=1, description="requests in flight to one endpoint at most")


def build(settings: Settings, http: httpx.AsyncClient) -> Service:
    """Webhooks' documents, reactions, jobs and routes."""
    keys = keys_of(settings.webhook_keys)
    return Service(
        name="webhooks",
        documents=(Endpoint, Stream, Feed),
        reactions=REACTIONS,
        jobs=jobs(Sender(http, keys), rate=settings.webhooks_per_second, at_once=settings.webhooks_at_once),
        routes=routes(keys, plain=settings.webhook_plain_http),
    )

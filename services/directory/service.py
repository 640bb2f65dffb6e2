"""Wires directory together."""

from __future__ import annotations

import httpx

from services.directory.api import routes
from services.directory.jobs import JOBS
from services.directory.model import CommunityService, HandOff, Person
from services.directory.reactions import REACTIONS
from shared.kit.service import Service
from shared.kit.settings import KitSettings


class Settings(KitSettings):
    """Directory needs nothing beside the kit's settings."""


def build(settings: Settings, http: httpx.AsyncClient) -> Service:
    """Directory's documents, reactions, jobs and routes. It calls nobody."""
    return Service(
        name="directory",
        documents=(CommunityService, HandOff, Person),
        reactions=REACTIONS,
        jobs=JOBS,
        routes=routes(),
    )

"""Wires referrals together."""

from __future__ import annotations

import httpx

from services.referrals.api import routes
from services.referrals.jobs import jobs
from services.referrals.model import Person, Referral, Specialist
from services.referrals.reactions import REACTIONS
from shared.kit.service import Service
from shared.kit.settings import KitSettings


class Settings(KitSettings):
    """Referrals needs nothing beside the kit's settings."""


def build(settings: Settings, http: httpx.AsyncClient) -> Service:
    """Referrals' documents, reactions, jobs and routes. It calls nobody."""
    return Service(
        name="referrals",
        documents=(Referral, Person, Specialist),
        reactions=REACTIONS,
        jobs=jobs(),
        routes=routes(),
    )

"""Wires scheduling together."""

from __future__ import annotations

import httpx

from services.scheduling.api import routes
from services.scheduling.jobs import jobs
from services.scheduling.model.appointment import Appointment
from services.scheduling.model.approval import Approval
from services.scheduling.model.calendar import Calendar
from services.scheduling.model.person import Person
from services.scheduling.model.referral import EndedReferral
from services.scheduling.model.talk import Talk
from services.scheduling.reactions import REACTIONS
from shared.kit.service import Service
from shared.kit.settings import KitSettings


class Settings(KitSettings):
    """Scheduling needs nothing beside the kit's settings."""


def build(settings: Settings, http: httpx.AsyncClient) -> Service:
    """Scheduling's documents, reactions, jobs and routes. It calls nobody."""
    return Service(
        name="scheduling",
        documents=(Calendar, Appointment, EndedReferral, Person, Approval, Talk),
        reactions=REACTIONS,
        jobs=jobs(),
        routes=routes(),
    )

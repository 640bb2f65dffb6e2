"""Wires intake: settings, the payers' client, and the three doors."""

from __future__ import annotations

from datetime import timedelta

import httpx
from pydantic import Field

from services.intake import model
from services.intake.api import routes
from services.intake.eligibility import Eligibility
from services.intake.jobs import jobs
from services.intake.model.verification import Verification
from services.intake.reactions import REACTIONS
from shared.kit.service import Service
from shared.kit.settings import KitSettings


class Settings(KitSettings):
    """What intake is configured with beside the kit's own. Durations are in domain time."""

    payer_url: str = "http://127.0.0.1:8081"
    payer_ids: dict[str, str] = Field(
        default_factory=dict, description="payer ids by an Organization's identifier, id or name, as JSON"
    )
    payer_timeout_seconds: float = Field(20.0, gt=0)
    registration_complete_within_days: float = Field(14, gt=0)
    coverage_verdict_within_days: float = Field(3, gt=0, description="then it is unverifiable, until the payer answers")
    coverage_holds_days: float = Field(30, gt=0, description="how long a payer's word is good for")
    coverage_renewed_after_days: float = Field(25, gt=0, description="the payer is asked again before its word ages")
    coverage_asked_again_after_days: float = Field(7, gt=0, description="after a no, or an answer that said nothing")


def build(settings: Settings, http: httpx.AsyncClient) -> Service:
    """The service; ``http`` is the client for calls to payers."""
    intake = model.Intake(
        model.Timing(
            complete_within=timedelta(days=settings.registration_complete_within_days),
            verification=Verification(
                holds_for=timedelta(days=settings.coverage_holds_days),
                renewed_after=timedelta(days=settings.coverage_renewed_after_days),
                owed_within=timedelta(days=settings.coverage_verdict_within_days),
                asked_again_after=timedelta(days=settings.coverage_asked_again_after_days),
            ),
        )
    )
    eligibility = Eligibility(http, settings.payer_url, timeout=settings.payer_timeout_seconds)
    return Service(
        name="intake",
        documents=(model.Patient,),
        reactions=REACTIONS,
        jobs=jobs(intake, eligibility),
        routes=routes(intake, settings.payer_ids),
    )

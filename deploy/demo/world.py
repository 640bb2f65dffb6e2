"""The world the patients live in: specialists with calendars, and community services, put there by the public APIs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from uuid import UUID, uuid5

from deploy.demo.api import Api, Json
from deploy.demo.cases import HERE

_NAMES = UUID("5a0d2f6e-6a1c-5f3e-8f3b-0c5a4b7e9d21")

COMMUNITY = HERE / "community.hsds.json"
"""Community services in HSDS 3.0 shape, all made up."""

SPECIALISTS: dict[str, int] = {
    "cardiology": 1,
    "dermatology": 2,
    "endocrinology": 1,
    "gastroenterology": 1,
    "general": 1,
    "nephrology": 1,
    "neurology": 1,
    "ophthalmology": 1,
    "orthopedics": 1,
    "physical-therapy": 1,
    "psychiatry": 1,
    "pulmonology": 1,
    "rheumatology": 1,
    "urology": 1,
}
"""How many specialists of each kind there are."""

CLINIC_DAYS = (10, 17, 24)
"""Days from the beginning on which every specialist has a clinic."""

OPENS = time(15)
SLOT = timedelta(minutes=30)
ZONE = "America/Chicago"


def specialist_id(specialty: str, number: int) -> str:
    """The id of a specialist, and of the calendar's resource."""
    return str(uuid5(_NAMES, f"{specialty}/{number}"))


def specialists() -> list[tuple[str, str]]:
    """Every specialist's id and specialty."""
    return [(specialist_id(name, number), name) for name, count in SPECIALISTS.items() for number in range(count)]


def clinic(now: datetime, slots_a_day: int) -> list[Json]:
    """The slots of one calendar."""
    first = [datetime.combine(now.date() + timedelta(days=days), OPENS, UTC) for days in CLINIC_DAYS]
    starts = [day + SLOT * number for day in first for number in range(slots_a_day)]
    return [{"start": start.isoformat(), "end": (start + SLOT).isoformat()} for start in starts]


async def furnish(api: Api, now: datetime, run: str, *, slots_a_day: int = 6) -> None:
    """List specialists and community services and publish the calendars; ``slots_a_day`` at most 18."""
    slots = clinic(now, slots_a_day)
    await asyncio.gather(
        *(_specialist(api, id, specialty, slots, run) for id, specialty in specialists()),
        *(api.put("directory", f"/services/{service['id']}", "directory-editor", service) for service in community()),
    )


async def _specialist(api: Api, id: str, specialty: str, slots: Iterable[Json], run: str) -> None:
    await api.put("referrals", f"/specialists/{id}", "coordinator", {"specialty": specialty})
    body = {"timezone": ZONE, "slots": list(slots)}
    await api.post("scheduling", f"/calendars/{id}/slots", "scheduler", f"{run}-clinic-{id}", body)


def community() -> list[Json]:
    """The community services."""
    services: list[Json] = json.loads(COMMUNITY.read_text(encoding="utf-8"))
    return services

"""What is played: FHIR bundles, each with a scenario beside it or without.

``<name>.json`` or ``<name>.bundle.json`` is a bundle; ``<name>.scenario.json`` beside it says what people do and how it
should end. A bundle without a scenario is registered and ordered, and should end, or wait in a state with a reason and
a deadline.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deploy.demo.api import Json

HERE = Path(__file__).parent
DEFAULT_FOLDER = HERE / "cases"

_SCENARIO = ".scenario.json"
_BUNDLE = ".bundle.json"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MEMBER = re.compile(r"SBX-[A-Z-]+-\d+")
_NUMBER = re.compile(r"\+1500555\d{4}")
_COPIES = UUID("7d2ee0a4-2a57-5a0c-8d0c-3a6f0d2a9b10")


class UnusableScenario(ValueError):
    """A scenario that cannot be played; says where it is wrong."""


class Do(StrEnum):
    """What somebody does in a scenario."""

    ACCEPT = "accept"
    REJECT = "reject"
    ARRIVE = "arrive"
    FULFIL = "fulfil"
    NO_SHOW = "no-show"
    REBOOK = "rebook"
    REPORT = "report"
    COMPLETE = "complete"
    REPLY = "reply"
    ACCEPT_HELP = "accept-help"
    HELPED = "helped"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Action(_Part):
    """One step of somebody, taken as soon as it can be."""

    do: Do
    reason: str = "no-capacity"
    barrier: str | None = None
    text: str | None = None
    said: Annotated[Json | None, Field(alias="with")] = None


class Ending(_Part):
    """How a referral should end: a terminal state, or a waiting one and why it waits."""

    state: str
    reason: str | None = None


class Units(_Part):
    """Units asked for and granted."""

    requested: int
    granted: int


class Scenario(_Part):
    """What people do, in this order, and what should come of it."""

    title: str
    shows: str
    actions: tuple[Action, ...] = ()
    ends: Ending
    alternative: Ending | None = None
    authorization: str | None = None
    appealed: bool = False
    units: Units | None = None
    help: dict[str, str] = {}
    messages: dict[str, int] = {}
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One bundle, as it stands in its file, and its scenario."""

    name: str
    text: str
    scenario: Scenario | None = None

    @property
    def title(self) -> str:
        """What the case shows, in a line."""
        return self.scenario.title if self.scenario else self.name

    def copy(self, number: int) -> Case:
        """The same story of another patient: other ids, member and telephone numbers, the same behaviour outside."""
        text = _UUID.sub(lambda found: str(uuid5(_COPIES, f"{number}/{found[0]}")), self.text)
        text = _MEMBER.sub(lambda found: f"{found[0]}{number:03d}", text)
        text = _NUMBER.sub(lambda found: f"+1312{(int(found[0][-4:]) * 997 + number) % 10_000_000:07d}", text)
        return Case(f"{self.name}-{number}", text, self.scenario)


def load(folder: Path) -> list[Case]:
    """The cases of a folder, in order of their names. Raises UnusableScenario; bundles are for the API to judge."""
    bundles = sorted(path for path in folder.glob("*.json") if not path.name.endswith(_SCENARIO))
    return [Case(_name(path), path.read_text(encoding="utf-8", errors="replace"), _scenario(path)) for path in bundles]


def _name(bundle: Path) -> str:
    return bundle.name.removesuffix(_BUNDLE).removesuffix(".json")


def _scenario(bundle: Path) -> Scenario | None:
    path = bundle.with_name(_name(bundle) + _SCENARIO)
    if not path.is_file():
        return None
    try:
        return Scenario.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        flaws = "; ".join(f"{'.'.join(map(str, flaw['loc']))}: {flaw['msg']}" for flaw in error.errors())
        raise UnusableScenario(f"{path.name}: {flaws}") from None


def resources(text: str, type: str) -> list[Json]:
    """The resources of a type in a bundle, in its order; none where the text is no bundle."""
    try:
        bundle = json.loads(text)
    except ValueError:
        return []
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    found = (entry.get("resource") for entry in entries or () if isinstance(entry, dict))
    return [one for one in found if isinstance(one, dict) and one.get("resourceType") == type]

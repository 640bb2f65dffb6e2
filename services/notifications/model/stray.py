"""A reply from somebody we do not know: that it came and what it asked for, without the number or the words."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from shared.contracts.intake import Channel
from shared.contracts.notifications import ReplyIntent
from shared.kit.decisions import Facts
from shared.kit.document import Document


class StrayState(StrEnum):
    """It is only kept."""

    KEPT = "kept"


class Stray(Document):
    """One reply of a stranger."""

    collection = "stray"
    transitions = {StrayState.KEPT: frozenset()}
    terminal = frozenset({StrayState.KEPT})

    state: StrayState = StrayState.KEPT
    channel: Channel
    intent: ReplyIntent
    at: datetime


class KeepStray(BaseModel):
    """Keep a stranger's reply; ``id`` is derived from the gateway's own."""

    id: str
    channel: Channel
    intent: ReplyIntent


def keep(stray: Stray | None, command: KeepStray, facts: Facts, now: datetime) -> Stray:
    """Keep it once, however often the gateway brings it."""
    return stray or Stray(id=command.id, channel=command.channel, intent=command.intent, at=now)

"""Whether a payer's notifications can be relied on, so that its pended requests need not be polled by the hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from shared.kit.decisions import Facts
from shared.kit.document import Document, derived_id

HEALTHY_FOR = timedelta(hours=24)
"""A payer that said nothing for a day, not even a heartbeat, is polled again by the hour."""

NOTED_EVERY = timedelta(minutes=15)
"""A busy payer's notifications change this document at most so often: it is a sign of life, not a ledger."""


class PayerState(StrEnum):
    """What the payer says of our subscription (R4B backport SubscriptionStatus.status)."""

    LISTENING = "listening"
    SILENT = "silent"


class Payer(Document):
    """One payer's notifications to us; the id follows from ``payer_id``."""

    collection = "payer"
    indexes = ("payer_id",)
    transitions: ClassVar = {
        PayerState.LISTENING: frozenset({PayerState.SILENT}),
        PayerState.SILENT: frozenset({PayerState.LISTENING}),
    }

    state: PayerState = PayerState.LISTENING
    payer_id: str
    heard_at: datetime

    def healthy(self, now: datetime) -> bool:
        """Whether a decision may be expected to be notified."""
        return self.state is PayerState.LISTENING and now - self.heard_at <= HEALTHY_FOR


@dataclass(frozen=True, slots=True)
class HearPayer:
    """A notification of a payer came in; ``active`` as its subscription status says."""

    payer_id: str
    active: bool


def payer_key(payer_id: str) -> str:
    """The id of a payer's document."""
    return derived_id("payer", payer_id)


def worth_noting(payer: Payer | None, command: HearPayer, now: datetime) -> bool:
    """Whether hearing of it would change what is known."""
    if payer is None or command.active != (payer.state is PayerState.LISTENING):
        return True
    return now - payer.heard_at >= NOTED_EVERY


def hear(document: Payer | None, command: HearPayer, facts: Facts, now: datetime) -> Payer:
    """Note a sign of life, or that the payer stopped notifying."""
    wanted = PayerState.LISTENING if command.active else PayerState.SILENT
    if document is None:
        return Payer(id=payer_key(command.payer_id), payer_id=command.payer_id, state=wanted, heard_at=now)
    if document.state is not wanted:
        document.move(wanted)
    document.heard_at = now
    return document

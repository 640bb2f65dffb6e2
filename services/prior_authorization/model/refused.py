"""What came in the name of a payer and was refused: why, when and how often, never what it said.

Nothing of it is kept that could be sent again: the payer's own retry, or our next inquiry, brings the news.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from shared.kit.decisions import Facts
from shared.kit.document import Document, Part, derived_id

KEPT = 50
"""How many different refusals are kept for a payer, the newest."""


class BadInputState(StrEnum):
    """It is a record, and stays one."""

    KEPT = "kept"


class Refusal(Part):
    """One kind of bad input. ``reason`` is the problem's code, ``what`` is wrong at ``path``, in our words.

    ``caller`` is the token's subject, None where nobody vouched for it; ``digest`` is the SHA-256 of the body and
    ``size`` its bytes, where it was read.
    """

    reason: str
    path: str | None = None
    what: str | None = None
    caller: str | None = None
    digest: str | None = None
    size: int | None = None
    first_at: datetime
    last_at: datetime
    times: int = 1

    def same(self, other: Refusal) -> bool:
        """Whether the other is this one again."""
        mine = (self.reason, self.path, self.what, self.caller, self.digest)
        return mine == (other.reason, other.path, other.what, other.caller, other.digest)


class BadInput(Document):
    """What was refused in the name of one payer; the id follows from ``payer_id``."""

    collection = "bad_input"
    indexes = ("payer_id",)
    transitions: ClassVar = {BadInputState.KEPT: frozenset()}

    state: BadInputState = BadInputState.KEPT
    payer_id: str
    refusals: list[Refusal] = []


@dataclass(frozen=True, slots=True)
class NoteRefusal:
    """Something was refused."""

    payer_id: str
    refusal: Refusal


def bad_input_key(payer_id: str) -> str:
    """The id of a payer's record."""
    return derived_id("bad-input", payer_id)


def note_refusal(document: BadInput | None, command: NoteRefusal, facts: Facts, now: datetime) -> BadInput:
    """Keep a refusal, or count it where it is known."""
    found = document or BadInput(id=bad_input_key(command.payer_id), payer_id=command.payer_id)
    known = next((each for each in found.refusals if each.same(command.refusal)), None)
    if known is None:
        found.refusals = [*found.refusals, command.refusal][-KEPT:]
    else:
        counted = known.model_copy(update={"last_at": now, "times": known.times + 1})
        found.refusals = [*(each for each in found.refusals if each is not known), counted]
    return found

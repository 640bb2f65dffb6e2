"""How every service shows what its documents have in common: instants, and what a document waits for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

from shared.kit.document import Document


@overload
def instant(at: datetime) -> str: ...
@overload
def instant(at: datetime | None) -> str | None: ...
def instant(at: datetime | None) -> str | None:
    """A FHIR R4 instant in UTC, to the millisecond."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wait(document: Document) -> dict[str, str | None] | None:
    """What a document waits for: since and until when, who owes it, when that was escalated. None where nothing."""
    held = document.wait
    if held is None:
        return None
    return {
        "owner": str(held.owner),
        "reason": str(held.reason),
        "since": instant(held.since),
        "deadline": instant(held.deadline),
        "escalated_at": instant(held.escalated_at),
    }

"""The visits that an authorization is for, as scheduling tells of them; and what another payer had approved."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum

from shared.kit.document import Part


class VisitStatus(StrEnum):
    """What became of a visit."""

    BOOKED = "booked"
    USED = "used"
    GONE = "gone"


class Visit(Part):
    """One visit. ``told``: for which date and number financial services were told; ``warned``: a person was called."""

    appointment_id: str
    start: datetime
    status: VisitStatus = VisitStatus.BOOKED
    told: str | None = None
    warned: bool = False


class Continuity(Part):
    """What the payer before had granted of the same care: evidence for the payer now."""

    payer_id: str
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    units: int = 0

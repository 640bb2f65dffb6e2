"""What payers approved of a referral's care: the days and units that its visits are paid for, and what they withheld.

A visit beyond it is paid for by nobody: none is booked there by itself, and a person who books one says why. What was
booked when the approval was another stays, and is shown.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar
from zoneinfo import ZoneInfo

from shared.contracts.prior_authorization import (
    AuthorizationApproved,
    AuthorizationCancelled,
    AuthorizationDenied,
    AuthorizationNotRequired,
    AuthorizationUnitsUsed,
    ItemDifference,
)
from shared.kit.decisions import Facts
from shared.kit.document import Document, Part
from shared.kit.errors import Conflict


class Beyond(StrEnum):
    """How a visit is not covered by what was approved."""

    LOST = "visit-without-approval"
    DAYS = "visit-outside-approval"
    UNITS = "visit-over-units"


_SAID = {
    Beyond.LOST: "the payer's approval was lost",
    Beyond.DAYS: "the day lies outside those approved",
    Beyond.UNITS: "the units approved are used or booked",
}


class BeyondApproval(Conflict):
    """The visit would not be paid for; whoever books it all the same says why."""

    slug = "beyond-approval"
    title = "The visit lies beyond what the payer approved"

    def __init__(self, how: Beyond) -> None:
        super().__init__(f"{_SAID[how]} ({how}); give beyond_approval, a reason as a code, to book it all the same")


class Grant(Part):
    """What one authorization grants. Dates inclusive; ``replaces`` is the one in whose place it was opened."""

    authorization_id: str
    replaces: str | None = None
    stands: bool = True
    number: str
    valid_from: date | None = None
    valid_to: date | None = None
    units_requested: int
    units_granted: int
    units_used: int = 0
    differences: tuple[ItemDifference, ...] = ()


class ApprovalState(StrEnum):
    """It is only kept."""

    KEPT = "kept"


class Approval(Document):
    """What was granted for one referral, by any of its authorizations; its id is ``referral_id``."""

    collection: ClassVar[str] = "approval"
    indexes: ClassVar[tuple[str, ...]] = ("referral_id",)
    transitions: ClassVar[dict[ApprovalState, frozenset[ApprovalState]]] = {ApprovalState.KEPT: frozenset()}

    state: ApprovalState = ApprovalState.KEPT
    referral_id: str
    grants: list[Grant] = []

    def standing(self) -> Grant | None:
        """The grant that holds now: of several that which was opened in place of the others, else the last told of."""
        stand = [grant for grant in self.grants if grant.stands]
        replaced = {grant.replaces for grant in stand}
        return next((grant for grant in reversed(stand) if grant.authorization_id not in replaced), None)

    def beyond(self, start: datetime, zone: str, others: int = 0) -> Beyond | None:
        """How a visit that starts then, beside ``others`` that are booked before it, is not covered; None: it is.

        Its date of service is the day at its place, in the IANA ``zone`` there.
        """
        grant = self.standing()
        if grant is None:
            return Beyond.LOST if self.grants else None
        day = start.astimezone(ZoneInfo(zone)).date()
        if not (grant.valid_from or date.min) <= day <= (grant.valid_to or date.max):
            return Beyond.DAYS
        return None if grant.units_used + others < grant.units_granted else Beyond.UNITS

    def pays_on(self, start: datetime, zone: str) -> bool:
        """Whether the day of a visit is among those approved, or nothing was."""
        return self.beyond(start, zone) is not Beyond.DAYS


def approved(known: Approval | None, event: AuthorizationApproved, _: Facts, __: datetime) -> Approval:
    """A payer granted, or granted otherwise than before."""
    approval = known or Approval(id=event.referral_id, referral_id=event.referral_id)
    grant = Grant(
        authorization_id=event.authorization_id,
        replaces=event.replaces,
        number=event.number,
        valid_from=event.valid_from,
        valid_to=event.valid_to,
        units_requested=event.units_requested,
        units_granted=event.units_granted,
        units_used=event.units_used or 0,
        differences=event.differences,
    )
    approval.grants = [*(each for each in approval.grants if each.authorization_id != event.authorization_id), grant]
    return approval


def used(approval: Approval, event: AuthorizationUnitsUsed, _: Facts, __: datetime) -> Approval:
    """A visit used a unit."""
    for grant in _of(approval, event.authorization_id):
        grant.units_granted, grant.units_used = event.units_granted, event.units_used
    return approval


def lost(approval: Approval, event: AuthorizationDenied | AuthorizationCancelled, _: Facts, __: datetime) -> Approval:
    """What was granted is so no more."""
    for grant in _of(approval, event.authorization_id):
        grant.stands = False
    return approval


def not_required(approval: Approval, event: AuthorizationNotRequired, _: Facts, __: datetime) -> Approval:
    """Nothing needs to be granted after all."""
    approval.grants = [grant for grant in approval.grants if grant.authorization_id != event.authorization_id]
    return approval


def _of(approval: Approval, authorization_id: str) -> list[Grant]:
    return [grant for grant in approval.grants if grant.authorization_id == authorization_id]

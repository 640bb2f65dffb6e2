"""What the newer release changes: how the patient is seen is decided with the specialist's acceptance, and kept.

referrals keeps ``visit_kind`` on the referral and in its window, and tells it by ``referral.accepted.v2``, beside
``.v1``. scheduling takes it over onto the appointment; it reads both versions, since older processes of referrals tell
the first alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import ModuleType
from typing import ClassVar

from shared.contracts.base import Event
from shared.contracts.referrals import ReferralAccepted
from shared.kit.decisions import Facts
from shared.kit.reactions import Reactions, on

IN_PERSON = "in-person"


class ReferralAcceptedV2(ReferralAccepted):
    """As the first version; it must say how the patient is to be seen, so it is another version."""

    type: ClassVar[str] = "referral.accepted.v2"
    visit_kind: str


def _referral(module: ModuleType) -> None:
    class Window(module.Window):  # type: ignore[misc, name-defined]
        visit_kind: str | None = None

    class Referral(module.Referral):  # type: ignore[misc, name-defined]
        visit_kind: str | None = None
        window: Window | None = None

        def record(self, event: Event) -> None:
            super().record(event)
            if type(event) is ReferralAccepted:
                self.visit_kind = IN_PERSON
                self.window = self.window.model_copy(update={"visit_kind": IN_PERSON})
                super().record(ReferralAcceptedV2(**event.model_dump(), visit_kind=IN_PERSON))

    module.Window = Window  # type: ignore[attr-defined]
    module.Referral = Referral  # type: ignore[attr-defined]


def _appointment(module: ModuleType) -> None:
    class Appointment(module.Appointment):  # type: ignore[misc, name-defined]
        visit_kind: str | None = None

    module.Appointment = Appointment  # type: ignore[attr-defined]


def _reactions(module: ModuleType) -> None:
    visit = module.visit

    def take_over(appointment: object, event: ReferralAcceptedV2, facts: Facts, now: datetime) -> object:
        found = visit.propose_for_referral(appointment, event, facts, now)
        found.visit_kind = event.visit_kind
        return found

    released = module.APPOINTMENTS
    second = on(ReferralAcceptedV2, lambda event: [visit.appointment_id(event.referral_id)], take_over, creates=True)
    newer = Reactions(released.document, *released.rows.values(), second)
    module.APPOINTMENTS = newer  # type: ignore[attr-defined]
    module.REACTIONS = tuple(  # type: ignore[attr-defined]
        newer if table is released else table for table in module.REACTIONS
    )


CHANGES: Mapping[str, Callable[[ModuleType], None]] = {
    "services.referrals.model.referral": _referral,
    "services.scheduling.model.appointment": _appointment,
    "services.scheduling.reactions": _reactions,
}
"""By module, what is changed of it once it is loaded."""

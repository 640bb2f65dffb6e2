"""What must hold of patients' care once a world has come to rest."""

from __future__ import annotations

from typing import TypeVar

from deploy.simulators.gateway import Gateway
from deploy.simulators.payer import Payer
from services.notifications.model.delivery import Delivery
from services.prior_authorization.model.authorization import Authorization
from services.referrals.model import Referral
from services.scheduling.model.appointment import Appointment
from services.scheduling.model.calendar import Calendar
from shared.kit.document import Document
from shared.kit.parking import Parked
from tests.checks import care
from tests.simulation.world import World

D = TypeVar("D", bound=Document)


async def _all(world: World, service: str, document: type[D]) -> list[D]:
    return await world.live(service)[0].chassis.repository.find(document, {}, limit=100_000)


async def check_care(world: World, payer: Payer, gateway: Gateway, *, deduplicate: bool) -> None:
    """All of them; a world must be calm. Where the gateway does not deduplicate, a lost answer stays unknown."""
    held = care.Held(
        parked={service: await _all(world, service, Parked) for service in world.declared},
        referrals=await _all(world, "referrals", Referral),
        appointments=await _all(world, "scheduling", Appointment),
        calendars=await _all(world, "scheduling", Calendar),
        authorizations=await _all(world, "prior_authorization", Authorization),
        deliveries=await _all(world, "notifications", Delivery),
    )
    lost = sum(delivery.lost for delivery in held.deliveries)
    assert lost <= world.unanswered, f"{lost} messages may be out, and {world.unanswered} answers were lost"
    now = world.clock.now()

    def may_be_unknown(delivery: Delivery) -> bool:
        """An answer was lost; and to ask again might send what by now is not wanted, or nobody would know it again."""
        return not deduplicate or delivery.withdrawn is not None

    care.check_care(held, payer.ledger, gateway.ledger, now, may_be_unknown=may_be_unknown)

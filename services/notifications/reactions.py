"""What notifications does with events: visits plan, deliveries follow their visit and their recipient."""

from __future__ import annotations

from functools import partial

from services.notifications.model import delivery, recipient, visit
from services.notifications.model.delivery import Delivery, DeliveryState
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import Recipient, RecipientState
from services.notifications.model.visit import Standing, Visit
from shared.contracts.intake import PersonChanged
from shared.contracts.notifications import DeliveriesWithdrawn, DeliveryPlanned, DeliveryUnaddressed, RecipientKnown
from shared.contracts.scheduling import (
    AppointmentArrived,
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
)
from shared.kit.reactions import Field, Reactions, on

_TO_COME = frozenset({DeliveryState.PLANNED, DeliveryState.AWAITING_RECIPIENT})
_GOING_ON = frozenset({Standing.BOOKED, Standing.ARRIVED})


def reactions(policy: Policy) -> tuple[Reactions, ...]:
    """The tables, by this policy. The role ``planner`` runs them."""
    book = partial(visit.book, policy)
    readdress = partial(delivery.readdress, policy)
    return (
        Reactions(
            Visit,
            on(AppointmentBooked, lambda e: (e.appointment_id,), book, when={Standing.BOOKED}, creates=True),
            on(AppointmentRescheduled, lambda e: (e.appointment_id,), book, when={Standing.BOOKED}, creates=True),
            on(AppointmentCancelled, lambda e: (e.appointment_id,), visit.cancel, when=_GOING_ON),
            on(AppointmentNoShow, lambda e: (e.appointment_id,), visit.miss, when={Standing.BOOKED}),
            on(AppointmentArrived, lambda e: (e.appointment_id,), visit.attend, when={Standing.BOOKED}),
            on(AppointmentFulfilled, lambda e: (e.appointment_id,), visit.attend, when=_GOING_ON),
        ),
        Reactions(
            Recipient,
            on(
                PersonChanged,
                lambda e: (e.patient_id,),
                partial(recipient.keep, policy),
                when={RecipientState.KNOWN},
                creates=True,
            ),
        ),
        Reactions(
            Delivery,
            on(
                DeliveryPlanned,
                lambda e: (e.delivery_id,),
                partial(delivery.plan, policy),
                creates=True,
                wants=delivery.wants_recipient,
            ),
            on(DeliveriesWithdrawn, lambda e: e.delivery_ids, delivery.withdraw, when=delivery.OPEN),
            on(
                DeliveryUnaddressed,
                lambda e: (e.delivery_id,),
                readdress,
                when=_TO_COME,
                wants=delivery.wants_recipient,
            ),
            on(
                RecipientKnown,
                Field("patient_id", lambda e: e.patient_id),
                readdress,
                when=_TO_COME,
                wants=delivery.wants_recipient,
            ),
        ),
    )

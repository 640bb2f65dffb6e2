"""What directory does with events: keeps where people live, opens hand-offs, and matches them with services."""

from services.directory.model import handoff
from services.directory.model.handoff import HandOff, Home, Person, Step
from shared.contracts.directory import (
    HandOffOffered,
    HandOffOpened,
    HandOffSought,
    NeedServed,
    PersonLocated,
    ServiceListed,
)
from shared.contracts.intake import BarrierRecorded, PersonChanged
from shared.kit.reactions import Field, Reactions, on

REACTIONS = (
    Reactions(
        Person,
        on(PersonChanged, lambda e: (e.patient_id,), handoff.keep_person, when={Home.KNOWN}, creates=True),
    ),
    Reactions(
        HandOff,
        on(
            BarrierRecorded,
            lambda e: (handoff.handoff_id(e.patient_id, e.barrier),),
            handoff.open_for_barrier,
            creates=True,
        ),
        on(
            HandOffOpened,
            lambda e: (e.handoff_id,),
            handoff.locate,
            when={Step.OPENED},
            wants=handoff.person_of,
        ),
        on(
            PersonLocated,
            Field("patient_id", lambda e: e.patient_id),
            handoff.locate,
            when=handoff.OPEN,
            wants=handoff.person_of,
        ),
        on(
            HandOffSought,
            lambda e: (e.handoff_id,),
            handoff.match,
            when={Step.SEARCHING},
            wants=handoff.suppliers,
        ),
        on(
            NeedServed,
            Field("watching", lambda e: e.need),
            handoff.match,
            when={Step.SEARCHING, Step.UNMATCHED},
            wants=handoff.suppliers,
        ),
        on(
            HandOffOffered,
            lambda e: (e.handoff_id,),
            handoff.confirm_offer,
            when={Step.OFFERED},
            wants=handoff.asked_service,
        ),
        on(
            ServiceListed,
            Field("offered_to", lambda e: e.service_id),
            handoff.confirm_offer,
            when={Step.OFFERED},
            wants=handoff.asked_service,
        ),
    ),
)

"""What intake does with events of other services: a channel that a person revoked must not be announced again."""

from __future__ import annotations

from services.intake import model
from shared.contracts.notifications import ChannelRevoked
from shared.kit.reactions import Reactions, on

REACTIONS: tuple[Reactions, ...] = (
    Reactions(
        model.Patient,
        on(
            ChannelRevoked,
            lambda event: [event.patient_id],
            model.revoke_channel,
            when=model.Patient.rest_of({model.State.ENTERED_IN_ERROR}),
        ),
    ),
)

"""What scheduling does when time comes: holds end, days end, waiting appointments look again or escalate."""

from __future__ import annotations

from services.scheduling.model import appointment as visit
from services.scheduling.model import calendar
from services.scheduling.model.appointment import Appointment
from services.scheduling.model.calendar import Calendar
from shared.kit.jobs import Jobs, timer


def jobs() -> tuple[Jobs, ...]:
    """The job tables; scheduling makes no outside calls."""
    return (
        Jobs(Calendar, timer("holds", calendar.expire_holds), timer("close", calendar.close)),
        Jobs(
            Appointment,
            timer("look", visit.look, wants=visit.slots_wanted),
            timer("deadline", visit.overdue),
        ),
    )

"""What directory does when time comes: escalates hand-offs that wait too long, and finds records gone stale."""

from services.directory.model.handoff import HandOff, overdue
from services.directory.model.listing import CommunityService, verification_due
from shared.kit.jobs import Jobs, timer

JOBS = (
    Jobs(HandOff, timer("deadline", overdue)),
    Jobs(CommunityService, timer("verify", verification_due)),
)

"""Events of directory: community services and the hand-off of a patient to one of them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from shared.contracts.base import Event
from shared.contracts.intake import Barrier


class ServiceStatus(StrEnum):
    """HSDS 3.0 service.status."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    DEFUNCT = "defunct"
    TEMPORARILY_CLOSED = "temporarily closed"


class HandOffOutcome(StrEnum):
    """How a hand-off ended."""

    HELPED = "helped"
    DECLINED_BY_PATIENT = "declined-by-patient"
    NO_SERVICE = "no-service"
    CANCELLED = "cancelled"


class ServiceListed(Event):
    """A community service was added or changed (subject: the service)."""

    type: ClassVar[str] = "service.listed.v1"
    topic: ClassVar[str] = "directory.events"
    service_id: str
    status: ServiceStatus
    needs: tuple[Barrier, ...] = ()
    languages: tuple[str, ...] = ()


class HandOffEvent(Event):
    """About one need of one patient; the subject is ``handoff_id``."""

    topic: ClassVar[str] = "directory.events"
    handoff_id: str
    patient_id: str
    barrier: Barrier


class HandOffOpened(HandOffEvent):
    """A need was recorded and services are looked for."""

    type: ClassVar[str] = "handoff.opened.v1"


class HandOffOffered(HandOffEvent):
    """A service was asked to help."""

    type: ClassVar[str] = "handoff.offered.v1"
    service_id: str


class HandOffUnmatched(HandOffEvent):
    """No listed service fits; a coordinator is asked."""

    type: ClassVar[str] = "handoff.unmatched.v1"


class HandOffAccepted(HandOffEvent):
    """The service will help."""

    type: ClassVar[str] = "handoff.accepted.v1"
    service_id: str


class HandOffClosed(HandOffEvent):
    """The need was met, or is no longer followed."""

    type: ClassVar[str] = "handoff.closed.v1"
    outcome: HandOffOutcome
    service_id: str | None = None


class HandOffEscalated(HandOffEvent):
    """A waiting state outlived its deadline: once per wait."""

    type: ClassVar[str] = "handoff.escalated.v1"
    state: str
    since: datetime
    deadline: datetime
    owner: str

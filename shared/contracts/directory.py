"""Events of directory: community services and the hand-off of a patient to one; between them, on a private topic."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from .base import Event
from .intake import Barrier


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


class PersonLocated(Event):
    """A person's area or language became known, or changed, or was erased (subject: the person). Private to directory.

    Says only that; who reacts reads where the person lives from the store.
    """

    type: ClassVar[str] = "person.located.v1"
    topic: ClassVar[str] = "directory.work"
    patient_id: str
    erased: bool = False


class HandOffSought(Event):
    """A hand-off looks for a service (subject: the hand-off). Private to directory."""

    type: ClassVar[str] = "handoff.sought.v1"
    topic: ClassVar[str] = "directory.work"
    handoff_id: str


class NeedServed(Event):
    """An active service meets a need, since now or in other places or languages than before. Private to directory."""

    type: ClassVar[str] = "service.need-served.v1"
    topic: ClassVar[str] = "directory.work"
    service_id: str
    need: Barrier

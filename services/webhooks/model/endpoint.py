"""An endpoint: who wants which events where, under which secrets, and whether anything is sent to it just now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from shared.contracts.webhooks import DisabledFor, EndpointChanged, EndpointDisabled, ReplayWanted
from shared.kit.decisions import Facts
from shared.kit.document import Document, Part
from shared.kit.errors import Conflict, Flaw, Invalid, NotFound

LOOK = "look"
LOOK_EVERY = timedelta(minutes=15)
"""How often an endpoint looks whether it is still any use."""

HOUR = timedelta(hours=1)
KEPT_FOR = timedelta(days=7)
"""How long events are kept for a replay, at the least; a topic's retention is as long by default."""

MOST_SECRETS = 5
_LOCAL_NAMES = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa")


class EndpointState(StrEnum):
    """Whether events are sent to it."""

    ACTIVE = "active"
    PAUSED = "paused"
    """By its owner; what happens meanwhile is sent when it is resumed, as far as it is still kept."""
    DISABLED = "disabled"
    """By CareRelay, because it failed too long; otherwise like paused."""
    REMOVED = "removed"


class Secret(Part):
    """One secret, which is derived and stored nowhere: its number, the name of the key it is derived from, its time."""

    number: int
    key: str
    since: datetime
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is still signed with."""
        return self.until is None or now < self.until


class Endpoint(Document):
    """One address of one subscriber."""

    collection: ClassVar[str] = "endpoint"
    indexes: ClassVar[tuple[str, ...]] = ("wanted", "owner", "state")
    transitions: ClassVar = {
        EndpointState.ACTIVE: frozenset({EndpointState.PAUSED, EndpointState.DISABLED, EndpointState.REMOVED}),
        EndpointState.PAUSED: frozenset({EndpointState.ACTIVE, EndpointState.REMOVED}),
        EndpointState.DISABLED: frozenset({EndpointState.ACTIVE, EndpointState.REMOVED}),
        EndpointState.REMOVED: frozenset(),
    }
    terminal: ClassVar = frozenset({EndpointState.REMOVED})

    state: EndpointState = EndpointState.ACTIVE
    owner: str
    url: str
    wanted: tuple[str, ...]
    """The event types that it gets; none once it is removed."""
    secrets: tuple[Secret, ...]
    """The newest first."""
    active_since: datetime
    disabled_for: DisabledFor | None = None
    disabled_at: datetime | None = None
    asking: int | None = None
    """While it is looked whether it took anything in the last day: the hour that is asked about, counted back."""


class Command(BaseModel):
    """Asked by ``by``; an operator may ask for anybody's endpoint, others for their own."""

    model_config = ConfigDict(frozen=True)

    by: str
    operator: bool = False


class Register(Command):
    """A new endpoint, whose first secret is derived from the key named ``key``."""

    id: str
    url: str
    wanted: tuple[str, ...]
    key: str


class Change(Command):
    """Another address, or other events."""

    url: str
    wanted: tuple[str, ...]


class Rotate(Command):
    """A new secret; the former one is signed with as well for ``overlap``."""

    key: str
    overlap: timedelta


class Replay(Command):
    """Send again what happened from ``since`` on."""

    since: datetime


def check_url(url: str, *, plain: bool, subscribable: Iterable[str] = ()) -> None:
    """Raises Invalid for an address that nothing may be sent to; what a name leads to is looked at when it is called.

    ``plain`` lets http and addresses of this machine pass, for tests on one machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Invalid(flaws=[Flaw("url", "is not a URL")]) from None
    reason = None
    if parts.scheme != "https" and not (plain and parts.scheme == "http"):
        reason = "is not https"
    elif not host or not host.isascii():
        reason = "has no host name in ASCII (IDNA)"
    elif parts.username is not None or parts.password is not None:
        reason = "holds a user or password"
    elif parts.fragment:
        reason = "holds a fragment"
    elif not plain and (_is_address(host) or ("." + host.rstrip(".")).endswith(_LOCAL_NAMES) or "." not in host):
        reason = "names no host of the public Internet"
    if reason is not None:
        raise Invalid(flaws=[Flaw("url", reason)])


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _own(document: Endpoint, command: Command) -> Endpoint:
    """The endpoint. Raises NotFound for somebody else's: whether there is one is nobody else's business."""
    if document.owner != command.by and not command.operator:
        raise NotFound()
    return document


def register(document: None, command: Register, facts: Facts, now: datetime) -> Endpoint:
    """A new endpoint; it gets what happens from now on."""
    made = Endpoint(
        id=command.id,
        owner=command.by,
        url=command.url,
        wanted=tuple(sorted(set(command.wanted))),
        secrets=(Secret(number=1, key=command.key, since=now),),
        active_since=now,
    )
    made.wake(LOOK, now + LOOK_EVERY)
    return made


def change(document: Endpoint, command: Change, facts: Facts, now: datetime) -> Endpoint:
    """Another address, or other events, from now on. Raises NotFound, Conflict for one that is removed."""
    _own(document, command)
    if document.state is EndpointState.REMOVED:
        raise Conflict("The endpoint is removed")
    document.url, document.wanted = command.url, tuple(sorted(set(command.wanted)))
    return document


def pause(document: Endpoint, command: Command, facts: Facts, now: datetime) -> Endpoint:
    """Send nothing for the time being. Raises NotFound, IllegalTransition."""
    _own(document, command).move(EndpointState.PAUSED)
    document.rest(LOOK)
    return document


def resume(document: Endpoint, command: Command, facts: Facts, now: datetime) -> Endpoint:
    """Send again, what was held back first. Raises NotFound, IllegalTransition."""
    _own(document, command).move(EndpointState.ACTIVE)
    document.active_since = now
    document.disabled_for = document.disabled_at = None
    document.wake(LOOK, now + LOOK_EVERY)
    document.record(EndpointChanged(endpoint_id=document.id))
    return document


def remove(document: Endpoint, command: Command, facts: Facts, now: datetime) -> Endpoint:
    """Send nothing any more; what was to be sent is forgotten. Raises NotFound, IllegalTransition."""
    _own(document, command).move(EndpointState.REMOVED)
    document.wanted = ()
    document.secrets = ()
    document.rest(LOOK)
    document.record(EndpointChanged(endpoint_id=document.id))
    return document


def rotate(document: Endpoint, command: Rotate, facts: Facts, now: datetime) -> Endpoint:
    """A new secret beside the former one, which holds for the overlap. Raises NotFound, Conflict."""
    _own(document, command)
    if document.state is EndpointState.REMOVED:
        raise Conflict("The endpoint is removed")
    held = [secret for secret in document.secrets if secret.holds(now)]
    if len(held) >= MOST_SECRETS:
        raise Conflict(f"{MOST_SECRETS} secrets hold already; wait for the end of an overlap")
    last = now + command.overlap
    for secret in held:
        secret.until = last if secret.until is None else min(secret.until, last)
    new = Secret(number=document.secrets[0].number + 1, key=command.key, since=now)
    document.secrets = (new, *(secret for secret in held if secret.holds(now)))
    return document


def replay(document: Endpoint, command: Replay, facts: Facts, now: datetime) -> Endpoint:
    """Have everything sent again from a time on, hour by hour. Raises NotFound, Conflict, Invalid for too long ago."""
    _own(document, command)
    if document.state is EndpointState.REMOVED:
        raise Conflict("The endpoint is removed")
    if command.since > now:
        raise Invalid(flaws=[Flaw("since", "lies in the future")])
    if command.since < now - KEPT_FOR:
        raise Invalid(flaws=[Flaw("since", f"is more than {KEPT_FOR.days} days ago; older events are not kept")])
    hour = command.since.replace(minute=0, second=0, microsecond=0)
    while hour <= now:
        document.record(ReplayWanted(endpoint_id=document.id, hour=hour_of(hour), since=command.since))
        hour += HOUR
    return document


def disable(document: Endpoint, reason: DisabledFor, now: datetime) -> Endpoint:
    """It failed too long: nothing is sent until its owner, who is told, resumes it."""
    document.move(EndpointState.DISABLED)
    document.disabled_for, document.disabled_at = reason, now
    document.rest(LOOK)
    document.record(EndpointDisabled(endpoint_id=document.id, owner=document.owner, reason=reason))
    return document


def hour_of(at: datetime) -> str:
    """The hour that a time (UTC) lies in, as ``2026-11-28T13``."""
    return at.isoformat()[:13]

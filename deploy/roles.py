"""Which processes each service is deployed as, where every role is a process of its own; read from the services."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import get_args

import httpx
from pydantic import SecretStr

from deploy.embedded.catalogue import SERVICES
from shared.kit.document import Document, queue_key
from shared.kit.jobs import Call
from shared.kit.service import API, JOBS, REACTIONS, Service
from shared.kit.settings import KitSettings


@dataclass(frozen=True, slots=True)
class Reads:
    """One consumer group that processes of a role are members of. ``performing``: it makes calls, slow ones."""

    group: str
    topics: tuple[str, ...]
    performing: bool


@dataclass(frozen=True, slots=True)
class Role:
    """One role of one service, as processes of their own.

    ``queues`` are its due queues, as ``shared.kit.document.queue_key`` names them; ``calls`` says whether it calls
    somebody outside of CareRelay.
    """

    service: str
    name: str
    reads: tuple[Reads, ...]
    queues: tuple[str, ...]
    calls: bool

    @property
    def process(self) -> str:
        """What its processes are called: ``prior-authorization-poller``."""
        return f"{self.service}-{self.name}".replace("_", "-")


def settings_of(service: str) -> type[KitSettings]:
    """The settings of a service."""
    found: type[KitSettings] = _wiring(service).Settings
    return found


def secrets_of(service: str) -> dict[str, bool]:
    """The environment variables of a service that are secret, and whether it must be given them.

    What has a value by default must be: that one is everybody's.
    """
    secret = {
        name.upper(): field.default is not None
        for name, field in settings_of(service).model_fields.items()
        if SecretStr in (field.annotation, *get_args(field.annotation))
    }
    return {"MONGODB_URI": True, **secret}


def declared(service: str) -> Service:
    """A service as it declares itself, with the settings that it has by default, whatever the environment says."""
    module = _wiring(service)
    found: Service = module.build(module.Settings.model_construct(), httpx.AsyncClient())
    return found


def roles_of(service: Service) -> tuple[Role, ...]:
    """The roles that share out all that a service does: its own, and of those every one has what they leave over."""
    own = [service.part(name) for name in service.roles]
    names = [API]
    reacts, works = service.part(REACTIONS), service.part(JOBS)
    if reacts.reactions - {each for part in own for each in part.reactions}:
        names.append(REACTIONS)
    queues = works.queues - {each for part in own for each in part.queues}
    performing = works.performing - {each for part in own for each in part.performing}
    if queues or performing:
        names.append(JOBS)
    return tuple(_role(service, name) for name in (*names, *service.roles))


def all_roles() -> tuple[Role, ...]:
    """Every role of every service."""
    return tuple(role for name in SERVICES for role in roles_of(declared(name)))


def _role(service: Service, name: str) -> Role:
    part = service.part(name)
    reads = [
        Reads(f"{service.name}.{table.document.collection}", table.topics, performing=False)
        for table in service.reactions
        if table.document.collection in part.reactions
    ]
    reads += [
        Reads(f"{service.name}.{row.role}", (row.event.topic,), performing=True)
        for row in service.performing
        if row.role in part.performing
    ]
    works = bool(reads or part.queues)
    # Whoever works also replays what is parked in any group of its service, calls that were to be made included.
    calls = (works and bool(service.performing)) or any(
        isinstance(row, Call)
        for table in service.jobs
        for queue in _queues(table.document, part.queues)
        for row in table.of(queue).values()
    )
    return Role(service.name, name, tuple(reads), tuple(sorted(part.queues)), calls)


def _queues(document: type[Document], keys: Iterable[str]) -> list[str]:
    return [queue for queue in document.all_queues() if queue_key(document.collection, queue) in keys]


def _wiring(service: str) -> ModuleType:
    return import_module(f"services.{service}.service")

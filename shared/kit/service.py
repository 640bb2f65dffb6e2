"""What a service is to the kit: its document types, its three doors, and which processes it may be run as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.kit.document import Document, queue_key
from shared.kit.jobs import Jobs
from shared.kit.metrics import Counted
from shared.kit.pausing import Pausable
from shared.kit.performing import Performing
from shared.kit.reactions import Reactions

if TYPE_CHECKING:
    from shared.kit.api import Routes

API, REACTIONS, JOBS, ALL = "api", "reactions", "jobs", "all"
"""The roles that every service has. ``all`` does everything in one process."""


@dataclass(frozen=True, slots=True)
class Part:
    """What processes of one role do.

    ``reactions`` are the collections whose tables they run, ``queues`` the due queues that they work off
    (``delivery``, ``authorization.poll``), ``performing`` the private topics' readers, by role.
    """

    api: bool = False
    reactions: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    performing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Service:
    """One service, declared; ``shared.kit.chassis`` makes it run.

    ``roles`` are its own beside those every one has, ``counts`` the events that a metric of its own counts.
    """

    name: str
    documents: tuple[type[Document], ...]
    reactions: tuple[Reactions, ...] = ()
    jobs: tuple[Jobs, ...] = ()
    routes: tuple[Routes, ...] = ()
    performing: tuple[Performing, ...] = ()
    roles: Mapping[str, Part] = field(default_factory=dict)
    counts: tuple[Counted, ...] = ()
    pausable: tuple[Pausable, ...] = ()

    def __post_init__(self) -> None:
        known = set(self.documents)
        used = {table.document for table in self.reactions} | {table.document for table in self.jobs}
        used |= {row.document for row in self.performing}
        used |= {document for kind in self.pausable for document in kind.of}
        if used - known:
            raise ValueError(f"{self.name} has tables for documents that it does not declare: {used - known}")
        collections = [document.collection for document in self.documents]
        if len(set(collections)) != len(collections):
            raise ValueError(f"{self.name} has two documents in one collection")
        everything = self.part(ALL)
        for role, part in self.roles.items():
            strange = (part.reactions - everything.reactions) | (part.queues - everything.queues)
            if strange := strange | (part.performing - everything.performing):
                raise ValueError(f"the role {role} of {self.name} does what nobody does: {', '.join(sorted(strange))}")

    def part(self, role: str) -> Part:
        """What processes of a role do. Raises KeyError for a role that there is not."""
        reactions = frozenset(table.document.collection for table in self.reactions)
        queues = frozenset(queue_key(d.collection, queue) for d in self.documents for queue in d.all_queues())
        performing = frozenset(row.role for row in self.performing)
        standard = {
            API: Part(api=True),
            REACTIONS: Part(reactions=reactions),
            JOBS: Part(queues=queues, performing=performing),
            ALL: Part(True, reactions, queues, performing),
        }
        return standard[role] if role in standard else self.roles[role]

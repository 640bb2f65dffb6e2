"""What a service is to the kit: its document types and its three doors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.kit.document import Document
from shared.kit.jobs import Jobs
from shared.kit.reactions import Reactions

if TYPE_CHECKING:
    from shared.kit.api import Routes


@dataclass(frozen=True)
class Service:
    """One service, declared; ``shared.kit.chassis`` makes it run."""

    name: str
    documents: tuple[type[Document], ...]
    reactions: tuple[Reactions, ...] = ()
    jobs: tuple[Jobs, ...] = ()
    routes: tuple[Routes, ...] = ()

    def __post_init__(self) -> None:
        known = set(self.documents)
        used = {table.document for table in self.reactions} | {table.document for table in self.jobs}
        if used - known:
            raise ValueError(f"{self.name} has tables for documents that it does not declare: {used - known}")
        collections = [document.collection for document in self.documents]
        if len(set(collections)) != len(collections):
            raise ValueError(f"{self.name} has two documents in one collection")

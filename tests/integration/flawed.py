"""directory as a release with a flaw, and with the flaw mended: ``python -m tests.integration.flawed all``.

With ``FLAWED`` set it cannot take a person whose postal code has nine digits. ``TAKEN`` names a file to which the
postal code of every person that was taken is added, in the order in which that was.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx

from services.directory.model import handoff
from services.directory.model.handoff import Home, Person
from services.directory.service import Settings, build
from shared.contracts.intake import PersonChanged
from shared.kit.decisions import Facts
from shared.kit.reactions import Reactions, on
from shared.kit.run import main
from shared.kit.service import Service


def keep_person(document: Person | None, event: PersonChanged, facts: Facts, now: datetime) -> Person:
    """Keep where a person lives, or fail on it as code fails: with what it was about in the message."""
    postal_code = event.address.postal_code if event.address else None
    if "FLAWED" in os.environ and postal_code and len(postal_code) > 5:
        raise ValueError(f"cannot place {event.family} at {postal_code}")
    with Path(os.environ["TAKEN"]).open("a", encoding="utf-8") as taken:
        taken.write(f"{postal_code}\n")
    return handoff.keep_person(document, event, facts, now)


def built(settings: Settings, http: httpx.AsyncClient) -> Service:
    """directory, with that decision in place of its own."""
    service = build(settings, http)
    row = on(PersonChanged, lambda e: (e.patient_id,), keep_person, when={Home.KNOWN}, creates=True)
    others = [table for table in service.reactions if table.document is not Person]
    return replace(service, reactions=(Reactions(Person, row), *others))


if __name__ == "__main__":
    main("directory", Settings, built)

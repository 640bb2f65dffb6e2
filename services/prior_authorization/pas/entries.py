"""The entries of a Bundle, and which of them a reference leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.kit.fhir import Element

Entries = Sequence[tuple[str | None, Element]]
"""Resources, each its own root, with their fullUrls."""


def entries_of(bundle: Mapping[str, object], at: str) -> Entries:
    """The entries that hold a resource, in order. Raises Invalid where they are not objects."""
    found = ((entry.text("fullUrl"), entry.one("resource")) for entry in Element(at, bundle).all("entry"))
    return tuple((url, Element(resource.path, resource.raw)) for url, resource in found if resource is not None)


def leads_to(reference: str, url: str | None, resource: Element) -> bool:
    """Whether a literal reference, of whatever version, leads to an entry: by its fullUrl, or by type and id."""
    bare = reference.split("/_history/", 1)[0]
    if bare == url:
        return True
    own = f"{resource.type}/{resource.id}" if resource.id is not None else None
    return own is not None and (bare == own or bare.endswith(f"/{own}"))

"""What the rows of a rules file have in common: strict tables, names or any, codes by prefix and range."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")

ANY = "*"


class Row(BaseModel):
    """One table of a rules file: frozen, and refused where it holds a name that means nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def most_specific(rows: Iterable[T], wanted: str, key: Callable[[T], str]) -> T | None:
    """The first row of that very name, else the first for any."""
    listed = list(rows)
    named = next((row for row in listed if key(row) == wanted), None)
    return named or next((row for row in listed if key(row) == ANY), None)


def covers(pattern: str, code: str) -> bool:
    """Whether a code is meant: itself (``99214``), its prefix (``G04*``), a range of its length (``99202..99215``)."""
    if pattern.endswith("*"):
        return code.startswith(pattern[:-1])
    low, dots, high = pattern.partition("..")
    if not dots:
        return code == pattern
    return len(low) == len(code) == len(high) and low <= code <= high

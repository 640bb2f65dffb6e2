"""The languages that messages are written in."""

from __future__ import annotations

from enum import StrEnum


class Language(StrEnum):
    """BCP 47 primary tags of the languages that there are wordings in."""

    ENGLISH = "en"
    SPANISH = "es"


def language_of(tag: str) -> tuple[Language, bool]:
    """The language to write in for a BCP 47 tag, and whether that is only for want of the person's own."""
    primary = tag.replace("_", "-").split("-")[0].lower()
    return (Language(primary), False) if primary in set(Language) else (Language.ENGLISH, True)

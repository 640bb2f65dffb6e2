"""What every published event is: plain, frozen data with a CloudEvents type and a topic of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Phi:
    """Marks a field as protected health information (45 CFR 160.103).

    A field so annotated may appear only in events on a ``<service>.people`` topic, and never in a key, header,
    subject, URL, log line, span, metric, error message or listing.
    """


PhiText = Annotated[str, Phi()]
"""A text that identifies or describes a person."""


class Value(BaseModel):
    """A frozen part of an event. Unknown fields are ignored, so that a newer publisher breaks no reader."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Coding(Value):
    """A code in a code system (FHIR R4 Coding, without its display text)."""

    system: str
    code: str


class Event(Value):
    """A fact in the past tense about one document.

    ``type`` is the CloudEvents type (``referral.sent.v1``); ``topic`` is where it is published. Within a version
    only optional fields may be added.
    """

    type: ClassVar[str]
    topic: ClassVar[str]

    def key(self) -> str | None:
        """The Kafka key, where that is not the document's id: on private work topics alone, which share work out."""
        return None

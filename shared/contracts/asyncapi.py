"""What each service publishes as an AsyncAPI 3.0 document: topics, events, envelopes, schemas and examples.

``python -m shared.contracts.asyncapi FOLDER`` writes one document a service. Work topics, being private, are left out.
"""

from __future__ import annotations

import copy
import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import __version__
from .base import Event
from .snapshot import EXAMPLES, events, schema_of

Document = dict[str, Any]

PARTITIONS = 12
"""Of a topic that CareRelay makes itself; a site may have given it more."""

PUBLIC, PEOPLE = "events", "people"
"""The last part of the name of a topic that is there for everybody, or for the readers that its owner named."""

ENVELOPE: dict[str, dict[str, Any]] = {
    "ce_specversion": {"type": "string", "const": "1.0"},
    "ce_id": {"type": "string", "format": "uuid", "description": "The event's own id; the same when it comes again."},
    "ce_source": {"type": "string", "format": "uri-reference", "description": "The service that published it."},
    "ce_type": {"type": "string", "description": "What happened, and in which version it is told."},
    "ce_time": {"type": "string", "format": "date-time", "description": "When it happened."},
    "ce_subject": {"type": "string", "format": "uuid", "description": "The document that it happened to; the key."},
    "ce_sequence": {
        "type": "string",
        "pattern": "^[1-9][0-9]*$",
        "description": "Its place among the events of its document: 1, 2, 3 ... Some come twice; first occurrences "
        "come in this order.",
    },
    "ce_dataschema": {"type": "string", "format": "uri", "description": "The JSON Schema of the value."},
    "content-type": {"type": "string", "const": "application/json"},
    "traceparent": {"type": "string", "description": "The case's trace (W3C Trace Context), where it has one."},
}
"""The headers of every event: CloudEvents 1.0, Kafka protocol binding, binary content mode."""

_OPTIONAL = frozenset({"traceparent"})
_BINDING = "0.5.0"
_DEFS = "#/$defs/"
_KEY = {
    "type": "string",
    "format": "uuid",
    "description": "The id of the document: what happens to it keeps its order.",
}


def documents() -> dict[str, Document]:
    """Every service's document, by the service's name; those that publish nothing for others have none."""
    by_service: dict[str, list[type[Event]]] = {}
    for event in events().values():
        service, _, kind = event.topic.partition(".")
        if kind in (PUBLIC, PEOPLE):
            by_service.setdefault(service, []).append(event)
    return {service: document_of(service, published) for service, published in sorted(by_service.items())}


def document_of(service: str, published: Iterable[type[Event]]) -> Document:
    """The AsyncAPI document of one service that publishes these events."""
    schemas: Document = {"Envelope": _envelope()}
    messages: Document = {}
    channels: Document = {}
    for event in published:
        messages[event.__name__] = _message(event, schemas)
        channel = channels.setdefault(event.topic.partition(".")[2], _channel(event.topic))
        channel["messages"][event.__name__] = {"$ref": f"#/components/messages/{event.__name__}"}
    return {
        "asyncapi": "3.0.0",
        "id": f"urn:carerelay:asyncapi:{service}",
        "info": {
            "title": f"CareRelay: events of {service}",
            "version": __version__,
            "description": _doc(inspect.getmodule(next(iter(published)))),
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{broker}",
                "protocol": "kafka",
                "description": "The site's Kafka, or what speaks its protocol.",
                "variables": {"broker": {"default": "127.0.0.1:9092", "description": "host:port of a broker"}},
            }
        },
        "channels": channels,
        "operations": {f"publish-{name}": _operation(name, channel) for name, channel in channels.items()},
        "components": {"messages": messages, "schemas": schemas},
    }


def _channel(topic: str) -> Document:
    told = "Ids and codes; never a name, a number or an address."
    if topic.endswith(f".{PEOPLE}"):
        told = "Personal data, for the readers that the owner named; subscribers from outside are not given access."
    return {
        "address": topic,
        "description": told,
        "messages": {},
        "bindings": {"kafka": {"topic": topic, "partitions": PARTITIONS, "bindingVersion": _BINDING}},
    }


def _operation(name: str, channel: Document) -> Document:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"Publishes on {channel['address']}.",
        "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in channel["messages"]],
    }


def _envelope() -> Document:
    required = [name for name in ENVELOPE if name not in _OPTIONAL]
    return {
        "type": "object",
        "description": "CloudEvents 1.0 in Kafka's binary mode: the attributes are headers.",
        "required": required,
        "properties": copy.deepcopy(ENVELOPE),
    }


def _message(event: type[Event], schemas: Document) -> Document:
    """One event's message; the parts of its payload go to ``schemas``. Raises ValueError where two share a name."""
    payload = copy.deepcopy(schema_of(event))
    for name, part in payload.pop("$defs", {}).items():
        moved = _moved(part)
        if schemas.setdefault(name, moved) != moved:
            raise ValueError(f"two parts of events are called {name}")
    payload = _moved(payload)
    payload["x-dataschema"] = payload.pop("$id")  # As $id it would be what the references are relative to.
    del payload["$schema"]
    type = {"type": "object", "properties": {"ce_type": {"type": "string", "const": event.type}}}
    return {
        "name": event.type,
        "title": event.__name__,
        "summary": _doc(event).split("\n")[0],
        "description": _doc(event),
        "contentType": "application/json",
        "headers": {"allOf": [{"$ref": "#/components/schemas/Envelope"}, type]},
        "payload": payload,
        "bindings": {"kafka": {"key": dict(_KEY), "bindingVersion": _BINDING}},
        "examples": [{"name": name, "payload": example} for name, example in _examples(event).items()],
    }


def _moved(part: Any) -> Any:
    """A part of a schema whose references lead to the document's schemas."""
    if isinstance(part, list):
        return [_moved(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: f"#/components/schemas/{value.removeprefix(_DEFS)}" if key == "$ref" else _moved(value)
        for key, value in part.items()
    }


def _examples(event: type[Event]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / f"{event.type}.json").read_text(encoding="utf-8"))
    return found


def _doc(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def text_of(document: Document) -> str:
    """A document as it stands in its file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main(folder: str) -> int:
    """Write every service's document into a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for service, document in documents().items():
        (Path(folder) / f"{service}.json").write_text(text_of(document), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Snapshots of the published language: the JSON Schema of every event, committed, so that a breaking change is seen.

``python -m shared.contracts.snapshot`` writes them to ``shared/contracts/schemas``. It refuses to write over one with
an incompatible one: within a version only optional fields may be added; anything else is a new event type beside it.
"""

from __future__ import annotations

import json
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from .base import Event, Phi

PACKAGE = Event.__module__.rpartition(".")[0]
"""What this package is called: ``shared.contracts``, or ``carerelay_contracts`` where it is installed by itself."""

FOLDER = Path(__file__).parent
SCHEMAS = FOLDER / "schemas"
EXAMPLES = FOLDER / "examples"

Schema = dict[str, Any]

_TEXT_FOR_PEOPLE = frozenset({"title", "description"})
"""Says nothing about what fits."""


# -- the events and their schemas -----------------------------------------------------------------------------------


def modules() -> list[str]:
    """The modules of this package."""
    return [module.name for module in pkgutil.iter_modules([str(FOLDER)])]


def events() -> dict[str, type[Event]]:
    """Every published event by its type. Raises ValueError where two have the same."""
    for name in modules():
        import_module(f"{PACKAGE}.{name}")
    found: dict[str, type[Event]] = {}
    for event in _below(Event):
        if "type" not in vars(event):
            continue  # A base of events, which is never published itself.
        if event.type in found:
            raise ValueError(f"{event.__name__} and {found[event.type].__name__} are both called {event.type}")
        found[event.type] = event
    return dict(sorted(found.items()))


def _below(parent: type[Event]) -> Iterator[type[Event]]:
    for child in parent.__subclasses__():
        if child.__module__.startswith(f"{PACKAGE}."):
            yield child
        yield from _below(child)


def schema_of(event: type[Event]) -> Schema:
    """An event's JSON Schema, with its CloudEvents type, its topic, and the paths of its personal data."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:carerelay:schema:{event.type}",
        "x-type": event.type,
        "x-topic": event.topic,
        "x-phi": sorted(phi_paths(event)),
        **event.model_json_schema(),
    }


def phi_paths(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Where a model holds fields that are annotated ``Phi``: ``address.city``, ``given[]``."""
    for name, hint in get_type_hints(model, include_extras=True).items():
        if name in model.model_fields:
            yield from _phi_in(hint, f"{path}.{name}" if path else name)


def _phi_in(hint: Any, path: str) -> Iterator[str]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield from phi_paths(hint, path)
        return
    if get_origin(hint) is Annotated and any(isinstance(mark, Phi) for mark in hint.__metadata__):
        yield path
        return
    inside = f"{path}[]" if get_origin(hint) in (tuple, list, set, frozenset, dict) else path
    yield from dict.fromkeys(found for part in get_args(hint) for found in _phi_in(part, inside))


# -- what may change ------------------------------------------------------------------------------------------------


def breaks(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What in ``new`` breaks those who read or write ``old``; nothing where only optional fields were added.

    A value that old readers have never seen breaks them as much as one that new readers refuse: so enumerations and
    types may neither narrow nor widen, a required field stays required, and a default stays what it was.
    """
    marks = ("$id", "x-type", "x-topic")
    found = [f"{mark} was {old.get(mark)}, is {new.get(mark)}" for mark in marks if old.get(mark) != new.get(mark)]
    bared = set(old.get("x-phi", ())) - set(new.get("x-phi", ()))
    found += [f"{path} is no longer marked as personal" for path in sorted(bared)]
    return found + list(_differences(spelled_out(old, old), spelled_out(new, new), ""))


def spelled_out(part: Any, root: Mapping[str, Any]) -> Any:
    """A part of a schema with its references replaced by what they lead to, and without words for people."""
    if isinstance(part, list):
        return [spelled_out(item, root) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        meant: Any = root
        for step in str(part["$ref"]).removeprefix("#/").split("/"):
            meant = meant[step]
        beside = {key: value for key, value in part.items() if key != "$ref"}
        return spelled_out({**meant, **beside}, root)
    spelled = {}
    for key, value in part.items():
        if key == "properties":
            spelled[key] = {name: spelled_out(field, root) for name, field in value.items()}
        elif key not in _TEXT_FOR_PEOPLE and key != "$defs" and not key.startswith("x-"):
            spelled[key] = spelled_out(value, root)
    return spelled


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """Where two spelled out schemas differ in more than optional fields of objects."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f"{path or 'the event'} was {json.dumps(old)}, is {json.dumps(new)}"
        return
    for key in sorted(old.keys() | new.keys()):
        if key == "properties":
            yield from _fields(old.get(key, {}), new.get(key, {}), path)
        elif key == "required":
            yield from _required(old.get(key, []), new.get(key, []), path)
        elif key in ("items", "anyOf", "prefixItems"):
            yield from _parts(old.get(key), new.get(key), path)
        elif key == "enum":
            yield from _enumeration(old.get(key), new.get(key), path)
        elif old.get(key, _NOTHING) != new.get(key, _NOTHING):
            yield f"{path or 'the event'}: {key} was {_shown(old, key)}, is {_shown(new, key)}"


_NOTHING = object()


def _shown(schema: Mapping[str, Any], key: str) -> str:
    return json.dumps(schema[key]) if key in schema else "absent"


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _fields(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, field in old.items():
        if name not in new:
            yield f"{_at(path, name)} was removed"
        else:
            yield from _differences(field, new[name], _at(path, name))


def _required(old: list[str], new: list[str], path: str) -> Iterator[str]:
    yield from (f"{_at(path, name)} is required now" for name in sorted(set(new) - set(old)))
    yield from (f"{_at(path, name)} is no longer required" for name in sorted(set(old) - set(new)))


def _parts(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for before, after in zip(old, new, strict=True):
            yield from _differences(before, after, path)
    else:
        yield from _differences(old, new, f"{path}[]")


def _enumeration(old: list[Any] | None, new: list[Any] | None, path: str) -> Iterator[str]:
    lost, won = ([v for v in a or () if v not in (b or ())] for a, b in ((old, new), (new, old)))
    yield from (f"{path} can no longer be {json.dumps(value)}" for value in lost)
    yield from (f"{path} can now be {json.dumps(value)}" for value in won)


# -- the files ------------------------------------------------------------------------------------------------------


def text_of(schema: Mapping[str, Any]) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2) + "\n"


def committed() -> dict[str, Schema]:
    """The snapshots on file, by event type."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMAS.glob("*.json"))}


def main() -> int:
    """Write the snapshots; 1, and nothing written, where a change would break readers or writers."""
    snapshots, current = committed(), {type: schema_of(event) for type, event in events().items()}
    broken = {type: breaks(old, current[type]) for type, old in snapshots.items() if type in current}
    broken |= {type: ["its event was removed"] for type in snapshots.keys() - current.keys()}
    refused = [f"{type}: {reason}" for type, reasons in sorted(broken.items()) for reason in reasons]
    if refused:
        sys.stderr.write("\n".join([*refused, "Leave these as they are, and publish a new version beside them.", ""]))
        return 1
    SCHEMAS.mkdir(exist_ok=True)
    for type, schema in current.items():
        (SCHEMAS / f"{type}.json").write_text(text_of(schema), encoding="utf-8")
    sys.stdout.write(f"{len(current)} schemas written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

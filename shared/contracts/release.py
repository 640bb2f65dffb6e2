"""What was released of the published language, and the gate that keeps it: subscribers run on what they were given.

``python -m shared.contracts.release`` checks the events as they are against the last release; with ``cut`` it writes
``released/<version>.json`` when nothing breaks. ``snapshot`` guards each change; this guards what others already use.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from . import __version__
from .asyncapi import PEOPLE, PUBLIC
from .snapshot import FOLDER, Schema, breaks, events, schema_of

RELEASED = FOLDER / "released"

ADVICE = """\
Subscribers run on what was released. Leave the released version of the event as it was, and publish the new one beside
it: a class of its own whose type ends in the next version (referral.sent.v2), recorded together with the old one until
they have moved. Withdrawing an event takes a new major version of the language (__version__ in shared/contracts).
"""


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared. Raises ValueError where it is none."""
    return tuple(int(part) for part in version.split("."))


def last() -> tuple[str, dict[str, Schema]]:
    """The last release: its version and its schemas by event type. Raises FileNotFoundError where there is none."""
    files = sorted(RELEASED.glob("*.json"), key=lambda path: numbers(path.stem))
    if not files:
        raise FileNotFoundError("nothing was released yet")
    return files[-1].stem, json.loads(files[-1].read_text(encoding="utf-8"))


def current() -> dict[str, Schema]:
    """The schemas of the events that others may read, as they are now."""
    found = events().items()
    return {type: schema_of(event) for type, event in found if event.topic.partition(".")[2] in (PUBLIC, PEOPLE)}


def broken(
    released: Mapping[str, Schema], now: Mapping[str, Schema], *, since: str, version: str = __version__
) -> list[str]:
    """What breaks those who run on the release ``since``, a line each; nothing where all go on."""
    withdrawable = numbers(version)[0] > numbers(since)[0]
    found = []
    for type, schema in sorted(released.items()):
        if type in now:
            found += [f"{type}: {reason}" for reason in breaks(schema, now[type])]
        elif not withdrawable:
            found.append(f"{type}: it was withdrawn")
    return found


def text_of(schemas: Mapping[str, Schema]) -> str:
    """A release as it stands in its file: a line an event."""
    lines = ",\n".join(f"{json.dumps(type)}: {json.dumps(schema)}" for type, schema in sorted(schemas.items()))
    return f"{{\n{lines}\n}}\n"


def main(arguments: list[str]) -> int:
    """Check, and with ``cut`` release; 1, with the reasons, where subscribers would break."""
    now = current()
    try:
        since, released = last()
    except FileNotFoundError:
        since, released = "0", {}
    if found := broken(released, now, since=since):
        sys.stderr.write("\n".join([f"This breaks those who run on {since}:", *found, "", ADVICE]))
        return 1
    if arguments == ["cut"]:
        if numbers(__version__) <= numbers(since):
            sys.stderr.write(f"{since} is released; raise __version__ in shared/contracts/__init__.py first\n")
            return 1
        RELEASED.mkdir(exist_ok=True)
        (RELEASED / f"{__version__}.json").write_text(text_of(now), encoding="utf-8")
    sys.stdout.write(f"{len(released)} released events hold, {len(now.keys() - released.keys())} are new\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

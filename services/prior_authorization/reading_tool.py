"""The command ``read``: what payers' answers in files say, one JSON line a file; what is no answer is refused."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from services.prior_authorization.model.answers import WHOLE, ErrorAnswer, GrantAnswer, ItemAnswer, PayerAnswer
from services.prior_authorization.pas.reading import read_answers
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.errors import Flaw, Invalid
from shared.kit.run import Tool

MAX_BYTES = 64 * 1024 * 1024
"""A larger file is refused: no answer is a hundredth of it."""

DECISIONS = {
    ReviewAction.CERTIFIED: "approved",
    ReviewAction.PARTIAL: "partly-approved",
    ReviewAction.NOT_CERTIFIED: "denied",
    ReviewAction.PENDED: "pended",
    ReviewAction.MODIFIED: "modified",
    ReviewAction.CANCELLED: "cancelled",
    ReviewAction.CONTACT_PAYER: "contact-payer",
    ReviewAction.NO_ACTION_REQUIRED: "not-required",
}
UNDECIDED = "undecided"
"""Said of an item without a review action, with one that X12 306 does not have, or with two that differ."""

Line = dict[str, object]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a response, inquiry answer or notification of a payer"
    )


def _run(arguments: argparse.Namespace) -> int:
    try:
        status = read(arguments.files)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has heard enough; what Python still holds must not fail when it is flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


TOOL = Tool("read", "what payers' answers say, one JSON line a file", _arguments, _run)


def read(names: Sequence[str]) -> int:
    """Print a line for each file, in their order; 1 where one was refused, with its reasons on standard error."""
    refused = 0
    for name in names:
        try:
            line = _line(name, read_answers(_loaded(name)))
        except Invalid as refusal:
            refused = 1
            for flaw in refusal.flaws:
                print(f"{name}: {flaw.path} {flaw.reason}", file=sys.stderr)  # noqa: T201 - a command's answer
        else:
            print(json.dumps(line))  # noqa: T201
    return refused


def _loaded(name: str) -> object:
    """The JSON of a file. Raises Invalid where it cannot be read, is no UTF-8 or no JSON, or says a thing twice."""
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise _unreadable(f"cannot be read: {(reason or 'no such name').lower()}") from None
    if len(content) > MAX_BYTES:
        raise _unreadable(f"is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(f"is not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise _unreadable("is empty")
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _unreadable(f"is not one JSON document: line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _unreadable("is nested too deep") from None
    except ValueError:
        raise _unreadable("holds a number that cannot be read") from None


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; FHIR's JSON has each property once, and which of two would count nobody can tell."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _unreadable("has an object with one property twice")
    return found


def _no_constant(name: str) -> object:
    raise _unreadable("holds a number that JSON does not have")


def _unreadable(reason: str) -> Invalid:
    return Invalid("This file cannot be read", flaws=[Flaw("file", reason)])


# -- the line -------------------------------------------------------------------------------------------------------


def _line(name: str, answers: Sequence[PayerAnswer]) -> Line:
    return {
        "file": name,
        "outcome": _outcome([answer.outcome for answer in answers]),
        "items": [_item(item) for answer in answers for item in _items(answer)],
        "errors": [_error(error) for answer in answers for error in answer.errors],
    }


def _outcome(outcomes: Sequence[str]) -> str | None:
    """The outcome of all: the one they share, else error where one has it, else partial (FHIR R4 ClaimResponse)."""
    if len(set(outcomes)) <= 1:
        return next(iter(outcomes), None)
    return "error" if "error" in outcomes else "partial"


def _items(answer: PayerAnswer) -> Sequence[ItemAnswer]:
    """The items; a decision on the claim as a whole stands alone where there are none."""
    return answer.items or ((answer.whole,) if answer.whole is not None else ())


def _item(item: ItemAnswer) -> Line:
    return {
        "sequence": item.sequence if item.sequence != WHOLE else None,
        "decision": DECISIONS[item.action] if item.action is not None else UNDECIDED,
        "code": item.code,
        "number": item.number,
        "from": _shown(item.valid_from),
        "to": _shown(item.valid_to),
        "units": item.units,
        "reasons": list(item.reasons),
        "granted": _granted(item.granted),
    }


def _granted(grants: Sequence[GrantAnswer]) -> Line | list[Line] | None:
    """What stands in ``addItem`` for the item: nothing, one service, or a list of several."""
    shown: list[Line] = []
    for grant in grants:
        service = grant.service
        code, system = (service.code, service.system or None) if service is not None else (None, None)
        shown.append({"code": code, "system": system, "units": grant.units})
    return shown if len(shown) > 1 else next(iter(shown), None)


def _error(error: ErrorAnswer) -> Line:
    return {"item": error.item, "code": error.code, "path": error.path, "follow_up": error.follow_up}


def _shown(day: date | None) -> str | None:
    return day.isoformat() if day is not None else None

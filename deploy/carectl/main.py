"""The commands. Exit status: 0 good, 1 something is wrong, 2 usage, 3 unreachable, 4 not allowed, 5 refused."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import typer
from rich.console import Console, RenderableType

from deploy.carectl import screens, spans
from deploy.carectl.client import Answer, Client, Failed, Refused, Unreachable
from deploy.carectl.places import Misconfigured, places
from deploy.demo import traces

Json = dict[str, Any]
T = TypeVar("T")

GOOD, WRONG, USAGE = 0, 1, 2

app = typer.Typer(
    name="carectl",
    help="CareRelay from an operator's chair: see how it stands, and repair what went wrong.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
parked_app = typer.Typer(help="Events that could not be taken in, and what waits behind them.", no_args_is_help=True)
topics_app = typer.Typer(help="The topics that the services read and publish to.", no_args_is_help=True)
app.add_typer(parked_app, name="parked")
app.add_typer(topics_app, name="topics")

AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether it is meant.")]
Only = Annotated[list[str] | None, typer.Option("--service", "-s", help="Of this service alone; may be repeated.")]
Group = Annotated[str | None, typer.Option("--group", "-g", help="Of this consumer group, or timer:collection:timer.")]
Reason = Annotated[str | None, typer.Option("--reason", "-r", help="Whose reason holds this text.")]
Type = Annotated[str | None, typer.Option("--type", "-t", help="Whose first event is of this type.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="So many keys of a service at most.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Parked keys, by the ids that `parked list` shows.")]


class Kind(StrEnum):
    """Who may be paused."""

    PAYER = "payer"
    CHANNEL = "channel"


class _Chair:
    """What every command has: the configuration that was asked for, and where to speak."""

    config: Path | None = None
    http: Callable[[], httpx.AsyncClient] | None = None
    """How to speak, where not as usual; for tests."""
    out = Console()
    err = Console(stderr=True)


chair = _Chair()


@app.callback()
def options(
    config: Annotated[
        Path | None, typer.Option(help="Where the services are and whose token to use; see docs/carectl.md.")
    ] = None,
) -> None:
    """Take what holds for every command."""
    chair.config = config
    # A pipe has no width of its own: what is cut off at 80 columns cannot be read there.
    chair.out = Console() if sys.stdout.isatty() else Console(width=160)
    chair.err = Console(stderr=True)


def run() -> None:
    """The console script."""
    app()


class _Ended(Exception):
    """A command is done with, and this is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _do(command: Callable[[Client], Awaitable[int]]) -> None:
    """Run a command with a client, and exit as it ends."""

    async def whole() -> int:
        async with Client(places(config=chair.config), chair.http and chair.http()) as client:
            return await command(client)

    try:
        status = asyncio.run(whole())
    except Misconfigured as error:
        _say(str(error))
        status = USAGE
    except Failed as failure:
        _say(str(failure))
        status = failure.code
    except _Ended as ended:
        status = ended.status
    raise typer.Exit(status)


def _say(text: str) -> None:
    chair.err.print(text, style="red", highlight=False, markup=False, soft_wrap=True)


def _show(as_json: bool, told: Json, screen: Callable[[], RenderableType]) -> None:
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        chair.out.print(screen(), highlight=False)


def _asked(client: Client, only: Sequence[str] | None) -> list[str]:
    """The services that are meant."""
    for name in only or ():
        if name not in client.services:
            _say(f"there is no service {name}; there are {', '.join(client.services)}")
            raise _Ended(USAGE)
    return list(only or client.services)


def _unreachable(answers: Iterable[Answer]) -> dict[str, str]:
    return {answer.service: str(answer.failure) for answer in answers if answer.failure is not None}


def _bodies(answers: Iterable[Answer]) -> list[Json]:
    return [answer.body for answer in answers if answer.body is not None]


def _told(as_json: bool, missing: dict[str, str]) -> int:
    """The exit status where some services may not have answered, having said which."""
    if missing and not as_json:
        for why in missing.values():
            _say(f"not answered: {why}")
    return Unreachable.code if missing else GOOD


# -- how it stands -----------------------------------------------------------------------------------------------------


@app.command()
def status(
    service: Annotated[str | None, typer.Argument(help="Show this service whole.")] = None, as_json: AsJson = False
) -> None:
    """All services and roles at a glance. Exits with 1 where something is wrong, 3 where a service does not answer."""

    async def command(client: Client) -> int:
        names = _asked(client, [service] if service else None)
        answers = await client.each(names, "/status")
        found, missing = _bodies(answers), _unreachable(answers)
        wrong = any(each["problems"] for each in found)
        told = {"ok": not wrong and not missing, "services": found, "unreachable": missing}
        if service and found:
            _show(as_json, told, lambda: screens.service(found[0]))
        else:
            _show(as_json, told, lambda: screens.status(found, missing))
        return Unreachable.code if missing else WRONG if wrong else GOOD

    _do(command)


@app.command()
def lag(service: Only = None, as_json: AsJson = False) -> None:
    """How far each consumer group is behind, by topic: records, and the age of the oldest."""

    async def command(client: Client) -> int:
        answers = await client.each(_asked(client, service), "/lag")
        missing = _unreachable(answers)
        groups = [{"service": body["service"], **group} for body in _bodies(answers) for group in body["groups"]]
        _show(as_json, {"groups": groups, "unreachable": missing}, lambda: screens.lag(groups))
        return _told(as_json, missing)

    _do(command)


@app.command()
def outbox(service: Only = None, as_json: AsJson = False) -> None:
    """Events that Kafka does not have yet: in how many documents, and since when."""

    async def command(client: Client) -> int:
        answers = await client.each(_asked(client, service), "/outbox")
        missing = _unreachable(answers)
        lines = [{"service": body["service"], **line} for body in _bodies(answers) for line in body["outbox"]]
        _show(as_json, {"outbox": lines, "unreachable": missing}, lambda: screens.outbox(lines))
        return _told(as_json, missing)

    _do(command)


@app.command()
def slots(
    queue: Annotated[str | None, typer.Option("--queue", "-q", help="Of this due queue alone.")] = None,
    service: Only = None,
    as_json: AsJson = False,
) -> None:
    """Who looks after which due slots, at which epoch, and what is due longest."""

    async def command(client: Client) -> int:
        names = [queue.partition(".")[0]] if queue and not service else service
        answers = await client.each(_asked(client, names), "/slots", queue=queue)
        missing = _unreachable(answers)
        if refused := next((each.failure for each in answers if isinstance(each.failure, Refused)), None):
            raise refused
        queues = [{"service": body["service"], **each} for body in _bodies(answers) for each in body["queues"]]
        _show(as_json, {"queues": queues, "unreachable": missing}, lambda: screens.slots(queues))
        return _told(as_json, missing)

    _do(command)


# -- what is parked ----------------------------------------------------------------------------------------------------


async def _parked(
    client: Client, only: Sequence[str] | None, group: str | None, reason: str | None, type: str | None, limit: int
) -> tuple[list[Json], dict[str, str]]:
    """The keys that are meant, those that wait longest first, and who did not answer."""
    names = list(only) if only else _asked(client, None)
    answers = await client.each(names, "/parked", group=group, reason=reason, type=type, limit=limit)
    keys = [{"service": body["service"], **key} for body in _bodies(answers) for key in body["keys"]]
    return sorted(keys, key=lambda key: (key["since"] or "", key["id"])), _unreachable(answers)


@parked_app.command("list")
def parked_list(
    service: Only = None,
    group: Group = None,
    reason: Reason = None,
    type: Type = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Keys whose events wait, those that wait longest first."""

    async def command(client: Client) -> int:
        keys, missing = await _parked(client, _asked(client, service), group, reason, type, limit)
        _show(as_json, {"keys": keys, "unreachable": missing}, lambda: screens.parked(keys))
        return _told(as_json, missing)

    _do(command)


@parked_app.command("show")
def parked_show(id: Annotated[str, typer.Argument(help="A parked key.")], as_json: AsJson = False) -> None:
    """Why a key is parked: each event that waits, its type, place and reason; never what it holds."""

    async def command(client: Client) -> int:
        key = await _found(client, id)
        _show(as_json, key, lambda: screens.parked_key(key))
        return GOOD

    _do(command)


async def _found(client: Client, id: str) -> Json:
    """One parked key, whichever service has it. Raises Failed."""
    answers = await client.each(client.services, f"/parked/{id}")
    for body in _bodies(answers):
        return body
    if missing := _unreachable(each for each in answers if not isinstance(each.failure, Refused)):
        raise Unreachable("; ".join(missing.values()))
    ill_formed = next((each.failure for each in answers if isinstance(each.failure, Refused)), None)
    if ill_formed is not None and ill_formed.status != httpx.codes.NOT_FOUND:
        raise ill_formed
    _say(f"nothing is parked under {id}")
    raise _Ended(Refused.code)


async def _chosen(
    client: Client,
    ids: Sequence[str] | None,
    only: Sequence[str] | None,
    group: str | None,
    reason: str | None,
    type: str | None,
    everything: bool,
) -> list[Json]:
    """The keys that a change is about, by ids or by filters. Raises Failed."""
    if ids:
        return [await _found(client, id) for id in ids]
    if not (everything or group or reason or type):
        _say("name keys, or say which by --group, --reason or --type, or --all")
        raise _Ended(USAGE)
    keys, missing = await _parked(client, _asked(client, only), group, reason, type, 1000)
    if missing:
        raise Unreachable("; ".join(missing.values()))
    return keys


async def _change_parked(
    client: Client, keys: Sequence[Json], path: str, body: Callable[[Sequence[Json]], Json], dry_run: bool
) -> list[Json]:
    told: list[Json] = []
    for service in dict.fromkeys(key["service"] for key in keys):
        mine = [key for key in keys if key["service"] == service]
        answer = await client.post(service, path, {**body(mine), "dry_run": dry_run})
        told.extend({"service": service, **key} for key in answer["keys"])
    return told


def _sure(question: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Ask whether it is meant, where somebody is there to answer."""
    if yes or dry_run:
        return
    if as_json or not sys.stdin.isatty():
        _say(f"{question} Say --yes, or --dry-run to see what it would do.")
        raise _Ended(USAGE)
    if not typer.confirm(question):
        raise _Ended(GOOD)


@parked_app.command("replay")
def parked_replay(
    ids: Ids = None,
    service: Only = None,
    group: Group = None,
    reason: Reason = None,
    type: Type = None,
    everything: Annotated[bool, typer.Option("--all", help="All keys that wait.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have the events of keys applied again, each key's in order. What still fails stays parked, and says why."""

    async def command(client: Client) -> int:
        keys = await _chosen(client, ids, service, group, reason, type, everything)
        told = await _change_parked(
            client, keys, "/parked/replay", lambda mine: {"ids": [key["id"] for key in mine]}, dry_run
        )
        _show(as_json, {"dry_run": dry_run, "keys": told}, lambda: screens.done(told, dry_run, "replay"))
        return Refused.code if any(key["refused"] for key in told) else GOOD

    _do(command)


@parked_app.command("discard")
def parked_discard(
    ids: Ids = None,
    service: Only = None,
    group: Group = None,
    reason: Reason = None,
    type: Type = None,
    everything: Annotated[bool, typer.Option("--all", help="All keys that wait.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give up the first event of each key, on record; those behind it are applied."""

    async def command(client: Client) -> int:
        keys = await _chosen(client, ids, service, group, reason, type, everything)
        if keys:
            _sure(f"Give up the first event of {len(keys)} keys for good?", yes, dry_run, as_json)
        told = await _change_parked(
            client,
            keys,
            "/parked/discard",
            lambda mine: {"keys": [{"id": key["id"], "first": key["first"]} for key in mine]},
            dry_run,
        )
        _show(as_json, {"dry_run": dry_run, "keys": told}, lambda: screens.done(told, dry_run, "discard"))
        return Refused.code if any(key["refused"] for key in told) else GOOD

    _do(command)


# -- orders ------------------------------------------------------------------------------------------------------------


@app.command()
def pause(kind: Kind, name: str, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Have all calls to a payer, or by a channel, wait. Nothing is lost: what waits is counted, and goes on later."""
    _do(lambda client: _set_pause(client, kind, name, "paused", dry_run, as_json))


@app.command()
def resume(kind: Kind, name: str, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Have calls to a payer, or by a channel, go on."""
    _do(lambda client: _set_pause(client, kind, name, "running", dry_run, as_json))


async def _set_pause(client: Client, kind: Kind, name: str, state: str, dry_run: bool, as_json: bool) -> int:
    answers = await client.each(client.services, "/paused")
    able = [body for body in _bodies(answers) if any(each["kind"] == kind for each in body["kinds"])]
    missing = _unreachable(answers)
    if not able and missing:
        raise Unreachable("; ".join(missing.values()))
    if not able:
        _say(f"no service calls a {kind.value}")
        return Refused.code
    changes = []
    for body in able:
        order = {"kind": kind.value, "name": name, "state": state, "dry_run": dry_run}
        changes.append({"service": body["service"], **await client.post(body["service"], "/paused", order)})
    told = {"changes": changes, "dry_run": dry_run, "unreachable": missing}
    _show(as_json, told, lambda: screens.paused(changes))
    return _told(as_json, missing)


@app.command()
def paused(service: Only = None, as_json: AsJson = False) -> None:
    """Who is paused, since when, by whom, and how much waits."""

    async def command(client: Client) -> int:
        answers = await client.each(_asked(client, service), "/paused")
        missing = _unreachable(answers)
        found = [
            {"service": body["service"], "state": "paused", **each}
            for body in _bodies(answers)
            for each in body["paused"]
        ]
        _show(as_json, {"paused": found, "unreachable": missing}, lambda: screens.paused(found))
        return _told(as_json, missing)

    _do(command)


@topics_app.command("check")
def topics_check(service: Only = None, as_json: AsJson = False) -> None:
    """Whether each topic is there, with the partitions and replicas that are set. Exits with 1 where one is not."""

    async def command(client: Client) -> int:
        answers = await client.each(_asked(client, service), "/topics")
        return _topics(_bodies(answers), _unreachable(answers), {}, as_json)

    _do(command)


@topics_app.command("ensure")
def topics_ensure(service: Only = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Make the topics that are missing. What is there is left: more partitions would break its order."""

    async def command(client: Client) -> int:
        found = []
        for name in _asked(client, service):
            found.append(await client.post(name, "/topics", {"dry_run": dry_run}))
        made = sorted({topic for each in found for topic in each["made"]})
        return _topics(found, {}, {"made": made, "dry_run": dry_run}, as_json)

    _do(command)


def _topics(found: Sequence[Json], missing: dict[str, str], also: Json, as_json: bool) -> int:
    by_name: dict[str, Json] = {}
    for body in found:
        for topic in body["topics"]:
            known = by_name.setdefault(topic["topic"], {**topic, "services": []})
            known["services"].append(body["service"])
            known["problem"] = known["problem"] or topic["problem"]
    lines = [by_name[name] for name in sorted(by_name)]
    _show(as_json, {**also, "topics": lines, "unreachable": missing}, lambda: screens.topics(lines))
    if also.get("made") and not as_json:
        verb = "would be made" if also["dry_run"] else "made"
        chair.out.print(f"{verb}: {', '.join(also['made'])}", highlight=False)
    reached = _told(as_json, missing)
    return reached or (WRONG if any(each["problem"] for each in lines) else GOOD)


@app.command()
def replay(
    group: Annotated[str, typer.Argument(help="A consumer group, as `lag` shows it.")],
    since: Annotated[str, typer.Option("--from", help="A time with its zone, or so long ago: 90s, 30m, 2h, 3d.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Have a consumer group read again from a time on. What was taken in is skipped: no state changes by it."""

    async def command(client: Client) -> int:
        try:
            at = screens.ago(since, datetime.now(UTC))
        except ValueError as error:
            _say(f"--from: {error}")
            return USAGE
        (service,) = _asked(client, [group.partition(".")[0]])
        body = {"group": group, "since": at.isoformat()}
        told = await client.post(service, "/going-back", {**body, "dry_run": True})
        if not dry_run:
            _sure(f"Have {group} read {told['records']:,} records again?", yes, dry_run, as_json)
            told = await client.post(service, "/going-back", {**body, "dry_run": False})
        _show(as_json, told, lambda: screens.going_back(told))
        return GOOD

    _do(command)


# -- cases -------------------------------------------------------------------------------------------------------------


@app.command()
def story(patient: Annotated[str, typer.Argument(help="A patient's id.")], as_json: AsJson = False) -> None:
    """A patient's way through all services: what happened when, and what it waits for. Ids and codes only."""

    async def command(client: Client) -> int:
        answers = await client.each(client.services, f"/patients/{patient}/story")
        missing = _unreachable(answers)
        bodies = _bodies(answers)
        if refused := next((each.failure for each in answers if isinstance(each.failure, Refused)), None):
            raise refused
        told = {
            "patient_id": patient,
            "documents": [{"service": body["service"], **each} for body in bodies for each in body["documents"]],
            "events": sorted(
                ({"service": body["service"], **each} for body in bodies for each in body["events"]),
                key=lambda event: (event["at"], event["service"], event["document"], event["sequence"]),
            ),
            "complete": not missing and all(body["complete"] for body in bodies),
            "unreachable": missing,
        }
        if not told["documents"] and not missing:
            _say("nobody has heard of this patient")
            return Refused.code
        _show(as_json, told, lambda: screens.story(told))
        return _told(as_json, missing)

    _do(command)


@app.command()
def trace(
    id: Annotated[str, typer.Argument(metavar="REFERRAL", help="A referral's id, or any other document's.")],
    as_json: AsJson = False,
) -> None:
    """A case's trace over all services, as a waterfall: from Jaeger, or from the span files of a stack here."""

    async def command(client: Client) -> int:
        found = await _spans(client, id)
        if not found:
            _say("no span of it is found: it was not sampled, or is no longer kept")
            return Refused.code
        cut = spans.episodes(found)
        told = {"trace_id": found[0].trace, "spans": len(found), "episodes": [_episode(each) for each in cut]}
        _show(as_json, told, lambda: screens.waterfall(f"trace {found[0].trace}", cut, chair.out))
        return GOOD

    _do(command)


async def _spans(client: Client, id: str) -> list[traces.Span]:
    """The spans of a document's own trace. Raises Failed where nobody has it, or nobody can say."""
    answers = await client.each(client.services, f"/documents/{id}")
    documents = [each for body in _bodies(answers) for each in body["documents"]]
    trace_id = next((each["trace_id"] for each in documents if each["trace_id"]), None)
    known = client.places
    if trace_id is None:
        if refused := next((each.failure for each in answers if isinstance(each.failure, Refused)), None):
            raise refused
        if not documents and (missing := _unreachable(answers)):
            raise Unreachable("; ".join(missing.values()))
        _say("no service has a document of this id" if not documents else "this document belongs to no trace")
        raise _Ended(Refused.code)
    if known.jaeger is not None:
        return await spans.from_jaeger(known.jaeger, trace_id, client.http)
    if known.traces is None:
        raise Misconfigured(
            "where traces are kept is not known: set JAEGER_URL, or CARECTL_TRACES to a folder of spans"
        )
    return [span for span in traces.read(known.traces) if span.trace == trace_id]


def _episode(episode: spans.Episode) -> Json:
    def flat(span: traces.Span, depth: int) -> Iterable[Json]:
        yield {
            "span_id": span.id,
            "parent_id": span.parent,
            "depth": depth,
            "service": span.service,
            "name": span.name,
            "offset_ms": round((span.start - episode.start) / 1e6, 3),
            "duration_ms": round(span.milliseconds, 3),
            "times": span.times,
            "error": span.error,
        }
        for child in span.children:
            yield from flat(child, depth + 1)

    return {
        "at": episode.at.isoformat(),
        "duration_ms": round((episode.end - episode.start) / 1e6, 3),
        "count": episode.count,
        "spans": [line for root in episode.roots for line in flat(root, 0)],
    }


if __name__ == "__main__":
    run()

"""Runs one role of a service as a process: wires settings, store, bus, clock and telemetry; drains on SIGTERM.

``python -m services.<name> [api|reactions|jobs|all]`` or ``... parked list|show|replay|discard``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import ValidationError

from shared.kit.bus.kafka import KafkaBus
from shared.kit.bus.port import client_id
from shared.kit.chassis import Chassis
from shared.kit.clock import Clock, OffsetClock, SystemClock, random_id
from shared.kit.errors import DomainError
from shared.kit.guard import Guard
from shared.kit.outside import client
from shared.kit.parking import Parked, Parking, Which, summary, waiting, whole
from shared.kit.service import ALL, API, JOBS, REACTIONS, Part, Service
from shared.kit.settings import KitSettings
from shared.kit.shrinking import shrink
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import Store, StoreUnavailable
from shared.kit.store.repository import Repository
from shared.kit.telemetry import Telemetry, configure_logs, log

S = TypeVar("S", bound=KitSettings)

_KEPT = 75
"""Seconds that an idle connection is kept. Longer than whoever asks keeps it (httpx 5, load balancers 60 by default):
else both may let go of it at one moment, and a request that goes out on it is lost."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A command of a service beside its roles: ``python -m services.<service> <name> ...``, done when ``run`` returns.

    ``arguments`` adds what it takes to its parser; ``run`` gets them parsed and returns the exit status. One that needs
    the service's settings gets them by ``configured``.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], int]


def clock_of(settings: KitSettings) -> Clock:
    """The clock that the settings ask for."""
    return OffsetClock(settings.clock_offset_file) if settings.clock_offset_file else SystemClock()


def store_of(name: str, settings: KitSettings) -> MongoStore:
    """The store that the settings ask for."""
    database = settings.mongodb_database or name
    return MongoStore(settings.mongodb_uri, database, driver=settings.mongodb_driver)


def bus_of(name: str, settings: KitSettings, telemetry: Telemetry | None = None) -> KafkaBus:
    """The bus that the settings ask for."""
    return KafkaBus(
        settings.kafka_bootstrap_servers,
        client_id=client_id(name),
        login=settings.kafka_login,
        tls=settings.kafka_tls,
        partitions=settings.kafka_partitions,
        replication=settings.kafka_replication,
        idempotence=settings.kafka_idempotence,
        stuck_after=settings.stuck_seconds,
        drain=settings.drain_seconds,
        telemetry=telemetry,
    )


def guard_of(settings: KitSettings) -> Guard | None:
    """What keeps a service's outside calls out of our own networks, where the settings want that."""
    return Guard(settings.outside_also) if settings.outside_public_only else None


def uvicorn_config(app: FastAPI, settings: KitSettings) -> uvicorn.Config:
    """How a process listens. No access log: addresses stay out of the logs, whoever made them."""
    return uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(settings.drain_seconds),
        timeout_keep_alive=_KEPT,
    )


async def serve(name: str, settings: S, build: Callable[[S, httpx.AsyncClient], Service], role: str) -> None:
    """Run a role until SIGTERM or SIGINT; then finish what is in work, within ``drain_seconds``."""
    worker = random_id()
    telemetry = Telemetry.configure(
        name,
        role=role,
        instance=worker,
        every=settings.signals_seconds,
        ratio=settings.trace_sample_ratio,
        traces_file=settings.traces_file,
        endpoint=settings.otel_exporter_otlp_endpoint,
    )
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with client() as http, client(guard=guard_of(settings)) as outside:
        chassis = Chassis(
            build(settings, outside),
            settings,
            store=store_of(name, settings),
            bus=bus_of(name, settings, telemetry),
            clock=clock_of(settings),
            http=http,
            telemetry=telemetry,
            ids=random_id,
            role=role,
            call_ahead=settings.call_ahead_seconds,
            worker=worker,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        server = uvicorn.Server(uvicorn_config(chassis.app, settings))
        await _prepared(chassis)
        _spare_the_collector()
        await chassis.start()
        serving = asyncio.ensure_future(server._serve(None))
        log.info("started", role=role, port=settings.http_port)
        stop = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        # At the same time, so that neither has only what time the other leaves it.
        await asyncio.wait({serving, asyncio.ensure_future(chassis.retire())}, timeout=settings.drain_seconds)
        await chassis.stop()
        log.info("stopped", role=role)


def _spare_the_collector() -> None:
    """Have Python's cycle collector look at what batches make, seldom, and never again at what stays for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _prepared(chassis: Chassis) -> None:
    """Wait for store and broker as long as it takes: they may come up later than we do."""
    delay = 0.1
    while True:
        try:
            await chassis.prepare()
        except Exception as error:
            log.warning("waiting", error=type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)
        else:
            return


async def parked(store: Store, clock: Clock, arguments: argparse.Namespace) -> int:
    """List, show, replay or discard what is parked. Shows reasons and places, never a record's content."""
    parking = Parking(Repository(store, clock, lambda unsent: None))
    try:
        if arguments.action == "list":
            for raw in await waiting(store, Which(), limit=1000):
                print(json.dumps(summary(raw)))  # noqa: T201 - a command's answer
            return 0
        if arguments.action == "show":
            stored = await store.load(Parked.collection, [arguments.id])
            if not stored:
                print("nothing is parked under this id", file=sys.stderr)  # noqa: T201
                return 1
            print(json.dumps(whole(stored[0]), indent=2))  # noqa: T201
            return 0
        if arguments.action == "replay":
            done = await parking.replay(arguments.id)
        else:
            done = await parking.discard(arguments.id, arguments.by)
        print(json.dumps({"id": done.id, "state": done.state}))  # noqa: T201
        return 0
    except (DomainError, StoreUnavailable) as error:
        print(str(error), file=sys.stderr)  # noqa: T201
        return 1
    finally:
        await store.close()


async def shrunk(name: str, settings: S, build: Callable[[S, httpx.AsyncClient], Service], days: int) -> int:
    """Shrink what ended more than ``days`` ago; one JSON line a document type."""
    store = store_of(name, settings)
    before = clock_of(settings).now() - timedelta(days=days)
    try:
        async with httpx.AsyncClient() as http:
            for document in build(settings, http).documents:
                done = await shrink(store, document, before)
                print(json.dumps({"document": document.__name__, "shrunk": done}))  # noqa: T201
        return 0
    except StoreUnavailable as error:
        print(str(error), file=sys.stderr)  # noqa: T201
        return 1
    finally:
        await store.close()


def arguments_of(
    name: str, given: Sequence[str] | None = None, roles: Iterable[str] = (), tools: Iterable[Tool] = ()
) -> argparse.Namespace:
    """What a service's command line says: a role to run, what to do with what is parked, or a tool of its own."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}")
    commands = parser.add_subparsers(dest="command", required=True)
    for role in (API, REACTIONS, JOBS, ALL, *roles):
        commands.add_parser(role, help=f"run the role {role}")
    setting_aside = commands.add_parser("parked", help="events that could not be taken in")
    actions = setting_aside.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="one JSON line a key")
    for action in ("show", "replay", "discard"):
        one = actions.add_parser(action)
        one.add_argument("id")
        if action == "discard":
            one.add_argument("--by", required=True, help="who decides this; kept on record")
    shrinking = commands.add_parser("shrink", help="keep only the ending of what ended long ago")
    shrinking.add_argument("--days", type=int, required=True, help="how many days ago, at the least")
    for tool in tools:
        tool.arguments(commands.add_parser(tool.name, help=tool.help))
    return parser.parse_args(given)


def configured(settings: type[S]) -> S:
    """The settings that the environment gives; exits with 2 where they are wrong, naming each."""
    try:
        return settings()
    except ValidationError as error:
        for flaw in error.errors():
            where = [".".join(str(part) for part in flaw["loc"]).upper()] * bool(flaw["loc"])
            print(": ".join([*where, flaw["msg"]]), file=sys.stderr)  # noqa: T201
        sys.exit(2)


def main(
    name: str,
    settings: type[S],
    build: Callable[[S, httpx.AsyncClient], Service],
    roles: Mapping[str, Part] | None = None,
    tools: Sequence[Tool] = (),
) -> None:
    """The entry point of a service's ``__main__``; exits with 2 where the settings are wrong.

    ``roles`` and ``tools`` are the service's own.
    """
    arguments = arguments_of(name, roles=roles or (), tools=tools)
    for tool in tools:
        if tool.name == arguments.command:
            sys.exit(tool.run(arguments))
    found = configured(settings)
    configure_logs(name, found.log_level)
    if arguments.command == "parked":
        sys.exit(asyncio.run(parked(store_of(name, found), clock_of(found), arguments)))
    if arguments.command == "shrink":
        sys.exit(asyncio.run(shrunk(name, found, build, arguments.days)))
    uvloop.run(serve(name, found, build, arguments.command))

"""``python -m deploy.simulators all``: payer, gateway and issuer in one process, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

import httpx
import uvicorn
from aiosmtpd.smtp import SMTP
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.simulators.gateway import Gateway
from deploy.simulators.issuer import DEFAULT_DATA, Issuer
from deploy.simulators.outbound import TokenSource
from deploy.simulators.payer import InquiryAnswer, Payer
from shared.kit.auth import Role
from shared.kit.clock import Clock, OffsetClock, SystemClock

HOST = "127.0.0.1"
TICK_SECONDS = 0.1
ADDRESSES_FILE = "simulators.json"
MAX_MAIL_BYTES = 5 * 1024 * 1024

log = logging.getLogger("simulators")


class ByPort:
    """One ASGI app in front of several: the port that a connection came in by says which one is meant."""

    def __init__(self, apps: dict[int, ASGIApp]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the connection on."""
        await self._apps[scope["server"][1]](scope, receive, send)


@dataclass(frozen=True, slots=True)
class Sockets:
    """The bound sockets. Bound before anything is told of its address, so a port once named is ours."""

    payer: socket.socket
    gateway: socket.socket
    issuer: socket.socket
    smtp: socket.socket

    @property
    def addresses(self) -> dict[str, object]:
        """What ``simulators.json`` says."""
        urls: dict[str, object] = {name: url_of(getattr(self, name)) for name in ("payer", "gateway", "issuer")}
        return {**urls, "smtp": {"host": HOST, "port": port_of(self.smtp)}}


def bind(port: int, host: str = HOST) -> socket.socket:
    """A TCP socket, on this machine alone by default; 0 takes a free port."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound


def port_of(bound: socket.socket) -> int:
    """The port of a bound socket."""
    port: int = bound.getsockname()[1]
    return port


def url_of(bound: socket.socket) -> str:
    """The base URL of what listens there."""
    return f"http://{HOST}:{port_of(bound)}"


def service_token(issuer: Issuer, subject: str) -> TokenSource:
    """Tokens with which a simulator calls services; minted for each call, so none is ever stale."""
    return lambda: issuer.mint(Role.SERVICE, subject=subject, ttl=timedelta(minutes=5))


async def keep_ticking(tick: Callable[[], Awaitable[int]]) -> None:
    """Do what is due, ten times a second. A tick that fails is told and tried again: the rest must go on."""
    while True:
        try:
            await tick()
        except Exception:
            log.exception("a tick failed")
        await asyncio.sleep(TICK_SECONDS)


def stop(number: int, frame: FrameType | None) -> None:
    """What SIGTERM and SIGINT lead to, also after uvicorn, which raises the signal once more when it has stopped.

    The default would end the process before anything is put away.
    """
    raise SystemExit(0)


async def serve(options: argparse.Namespace) -> None:
    """Run all simulators until a signal comes."""
    clock: Clock = OffsetClock(options.clock_file) if options.clock_file is not None else SystemClock()
    ports = (options.port_payer, options.port_gateway, options.port_issuer, options.port_smtp)
    sockets = Sockets(*(bind(port, options.host) for port in ports))
    issuer = Issuer(options.data / "issuer", options.issuer_url or url_of(sockets.issuer))
    # Services are neighbours on this machine: no proxy of the environment stands between.
    async with httpx.AsyncClient(trust_env=False) as http:
        payer = Payer(
            now=clock.now,
            http=http,
            notify_url=options.notify_url,
            token=service_token(issuer, "payer-simulator"),
            slow_seconds=options.slow,
            inquiry=options.inquiry,
            data=options.data,
        )
        gateway = Gateway(
            now=clock.now,
            http=http,
            inbound_url=options.inbound_url,
            token=service_token(issuer, "gateway-simulator"),
            deduplicate=options.deduplicate == "on",
            slow_seconds=options.slow,
            data=options.data,
        )
        await _serve_sockets(sockets, payer, gateway, issuer, options.data)


async def _serve_sockets(sockets: Sockets, payer: Payer, gateway: Gateway, issuer: Issuer, data: Path) -> None:
    apps: dict[int, ASGIApp] = {
        port_of(sockets.payer): payer.app,
        port_of(sockets.gateway): gateway.app,
        port_of(sockets.issuer): issuer.app,
    }
    config = uvicorn.Config(ByPort(apps), lifespan="off", access_log=False, log_level="warning")
    loop = asyncio.get_running_loop()
    mail = await loop.create_server(
        lambda: SMTP(gateway.mail, data_size_limit=MAX_MAIL_BYTES, enable_SMTPUTF8=True, hostname="gateway.test"),
        sock=sockets.smtp,
    )
    ticking = [asyncio.create_task(keep_ticking(tick)) for tick in (payer.tick, gateway.tick)]
    for listening in (sockets.payer, sockets.gateway, sockets.issuer):
        # From here on connections wait in the backlog, so whoever reads the file can call at once.
        listening.listen(128)
    tell(sockets, data)
    try:
        await uvicorn.Server(config).serve(sockets=[sockets.payer, sockets.gateway, sockets.issuer])
    finally:
        for task in ticking:
            task.cancel()
        await asyncio.gather(*ticking, return_exceptions=True)
        mail.close()
        (data / ADDRESSES_FILE).unlink(missing_ok=True)


def tell(sockets: Sockets, data: Path) -> None:
    """Write the addresses where others look for them: whole or not at all."""
    text = json.dumps(sockets.addresses)
    draft = data / f"{ADDRESSES_FILE}.new"
    draft.write_text(text, encoding="utf-8")
    draft.replace(data / ADDRESSES_FILE)
    print(text, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.simulators", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("all", help="run everything in one process")
    for name in ("payer", "gateway", "issuer", "smtp"):
        run.add_argument(f"--port-{name}", type=int, default=0, help="a free one by default")
    run.add_argument("--host", default=HOST, help="the address to listen at; this machine alone by default")
    run.add_argument("--issuer-url", help="what tokens name as their issuer; its address here by default")
    run.add_argument("--data", type=Path, default=DEFAULT_DATA, help="ledger files, letters, the issuer's key")
    run.add_argument("--clock-file", type=Path, help="the demo's shared clock offset; real time without it")
    run.add_argument("--notify-url", help="where decisions are notified; {payer_id} is replaced")
    run.add_argument("--inbound-url", help="where replies go; {channel} is replaced")
    run.add_argument("--deduplicate", choices=("on", "off"), default="on", help="what the gateway does with known keys")
    run.add_argument("--slow", type=float, default=20.0, help="seconds that a slow answer takes")
    run.add_argument("--inquiry", type=InquiryAnswer, choices=list(InquiryAnswer), default=InquiryAnswer.BUNDLE)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulators; returns when a signal has stopped them."""
    options = parse(arguments)
    options.data.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    asyncio.run(serve(options))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

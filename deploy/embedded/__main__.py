"""``python -m deploy.embedded up|down|status|token``: the stack by hand."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from deploy.docker.engine import Missing as NoContainers
from deploy.docker.foundation import Containers
from deploy.embedded.catalogue import OUTSIDE
from deploy.embedded.foundation import Embedded, Foundation
from deploy.embedded.stack import DEFAULT_FOLDER, Stack, StackError
from deploy.native import BuildFailed, Missing, Native


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.embedded", description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where data and logs go")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the stack, wait until it is ready, leave it running")
    kinds = ("embedded", "native", "containers")
    up.add_argument("--stack", choices=kinds, default="embedded", help="what it stands on")
    up.add_argument("--only", nargs="+", metavar="PROGRAM", help="these of its programs, for example: broker store")
    commands.add_parser("down", help="stop it")
    commands.add_parser("status", help="show its processes and addresses")
    token = commands.add_parser("token", help="print a token for the running stack")
    token.add_argument("role", help="coordinator, clinician, scheduler, directory-editor, auditor, operator ...")
    chosen = parser.parse_args(arguments)
    try:
        return _run(chosen)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command == "up":
        return _up(chosen.folder, chosen.stack, chosen.only)
    stack = Stack.attach(chosen.folder)
    if stack is None:
        print("the stack is not running; `make up` starts it", file=sys.stderr)
        return 0 if chosen.command == "down" else 1
    if chosen.command == "down":
        stack.stop()
        print("stopped")
    if chosen.command == "status":
        return _show(stack)
    if chosen.command == "token":
        print(stack.token(chosen.role))
    return 0


def _up(folder: Path, kind: str, only: list[str] | None) -> int:
    running = Stack.attach(folder)
    if running is not None:
        print("already running")
        return _show(running)
    signal.signal(signal.SIGTERM, _as_interrupt)
    stack = Stack(folder, foundation=_foundation(kind), only=only)
    try:
        stack.start()
    except KeyboardInterrupt:
        print("stopped before it was ready", file=sys.stderr)
        return 130
    stack.let_go()
    attached = Stack.attach(folder)
    if attached is None:
        raise StackError("the stack ended as soon as it was ready; see " + str(stack.log("keeper")))
    _show(attached)
    if "simulators" in attached.names:
        print("\na coordinator's token (`make token ROLE=...` for others):\n" + attached.token("coordinator"))
        print("\nan operator's view of it: .venv/bin/carectl status")
    return 0


def _foundation(kind: str) -> Foundation:
    if kind == "embedded":
        return Embedded()
    try:
        return Native() if kind == "native" else Containers()
    except (Missing, BuildFailed, NoContainers) as error:
        raise StackError(f"the {kind} stack cannot be had here: {error}") from error


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show(stack: Stack) -> int:
    processes = stack.processes()
    for process in processes.values():
        condition = f"pid {process.pid}" if process.running else process.ending
        print(f"{process.name:<22}{condition:<22}{stack.addresses.get(process.name, '')}")
    if "simulators" in processes:
        for name in OUTSIDE:
            print(f"{name:<22}{'in simulators':<22}{stack.addresses[name]}")
    print(f"logs: {stack.folder / 'logs'}")
    return 0 if all(process.running for process in processes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

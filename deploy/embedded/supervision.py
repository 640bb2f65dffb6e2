"""What the keeper is told and asked: supervisord's configuration, and its XML-RPC interface on a Unix socket."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from xmlrpc.client import Error, Fault, ServerProxy

from supervisor.states import ProcessStates
from supervisor.xmlrpc import Faults, SupervisorTransport

LEASH = Path(__file__).with_name("leash.py")

KILLED = -1
"""The exit status supervisord reports for a process that a signal ended."""


UNANSWERED = (OSError, HTTPException, Error)
"""What asking a keeper raises that is gone, going, or not there yet."""


class Group(IntEnum):
    """What is started together, in this order, and stopped together, in the reverse one."""

    foundation = 10
    outside = 20
    services = 30


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the stack.

    It is ready when its ``ports`` accept connections, ``ready`` (URLs) answer 200, and ``sign`` is there: a file, where
    a port that accepts connections means nothing. ``stop_seconds`` is what it is
    given between SIGTERM and SIGKILL. ``signal`` is the command that sends a signal, its last argument, where the
    process that does the work is not the one that is started here.
    """

    name: str
    group: Group
    argv: Sequence[str]
    environment: Mapping[str, str]
    ports: Sequence[int]
    ready: Sequence[str] = ()
    stop_seconds: int = 10
    signal: Sequence[str] = ()
    sign: Path | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A program as the keeper sees it: ``pid`` is None while it does not run, ``ending`` says how it ended."""

    name: str
    running: bool
    pid: int | None
    ending: str


def configuration(programs: Iterable[Program], folder: Path, socket: Path, root: Path) -> str:
    """The configuration file that makes supervisord run ``programs`` in ``root``, with logs under ``folder``."""
    programs = tuple(programs)
    sections = [
        f"""[supervisord]
nodaemon=true
silent=true
logfile={_plain(folder / "logs" / "keeper.log")}
pidfile={_plain(folder / "keeper.pid")}
[unix_http_server]
file={_plain(socket)}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    ]
    sections += [_program(program, folder, root) for program in programs]
    for group in sorted({program.group for program in programs}):
        members = ",".join(program.name for program in programs if program.group is group)
        sections.append(f"[group:{group.name}]\nprograms={members}\npriority={group.value}\n")
    return "\n".join(sections)


def _program(program: Program, folder: Path, root: Path) -> str:
    # Nothing is restarted by itself: on a laptop and in a test a process that dies is a fault to be seen.
    leash = (sys.executable, "-I", "-S", str(LEASH))
    environment = ",".join(f"{name}={_quoted(value)}" for name, value in program.environment.items())
    return f"""[program:{program.name}]
command={_plain(shlex.join((*leash, *program.argv)))}
directory={_plain(root)}
environment={environment}
autostart=false
autorestart=false
startsecs=0
startretries=0
stopwaitsecs={program.stop_seconds}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={_plain(folder / "logs" / f"{program.name}.log")}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""


def _plain(value: str | os.PathLike[str]) -> str:
    """A value whose percent signs supervisord does not take for its own."""
    return os.fspath(value).replace("%", "%%")


def _quoted(value: str) -> str:
    if '"' in value or "\n" in value or "\\" in value:
        raise ValueError("an environment value may hold no double quote, backslash or line end")
    return f'"{_plain(value)}"'


class Keeper:
    """A running keeper, by its socket."""

    def __init__(self, socket: Path, groups: Mapping[str, str]) -> None:
        self._groups = groups
        self._transport = SupervisorTransport(None, None, f"unix://{socket}")
        self._rpc: Any = cast(Any, ServerProxy("http://keeper", transport=self._transport)).supervisor

    def answers(self) -> bool:
        """Whether a keeper is there."""
        try:
            return bool(self._call("getState")["statecode"] == 1)
        except UNANSWERED:
            return False

    def processes(self) -> dict[str, Process]:
        """Every process of the stack by name, as it is now."""
        self._call("getState")  # the keeper looks for its dead after each request, so that the next answer is fresh
        return {info["name"]: _process(info) for info in self._call("getAllProcessInfo")}

    def start(self, name: str) -> None:
        """Have a process started; it need not be ready when this returns."""
        self._call("startProcess", self._full(name), False)

    def stop(self, name: str) -> None:
        """Stop a process in good order, and return when it is gone."""
        try:
            self._call("stopProcess", self._full(name))
        except Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise

    def shutdown(self) -> None:
        """Have everything stopped, the keeper last; returns at once."""
        self._call("shutdown")
        self._transport.close()

    def _full(self, name: str) -> str:
        return f"{self._groups[name]}:{name}"

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            return getattr(self._rpc, method)(*arguments)
        except UNANSWERED:
            # The transport keeps a connection; after an error it may be out of step.
            self._transport.close()
            raise


def _process(info: Mapping[str, Any]) -> Process:
    running = info["state"] in (ProcessStates.STARTING, ProcessStates.RUNNING, ProcessStates.STOPPING)
    ending = "killed by a signal" if info["exitstatus"] == KILLED else f"exit status {info['exitstatus']}"
    if info["state"] in (ProcessStates.FATAL, ProcessStates.BACKOFF):
        ending = info["spawnerr"]
    return Process(info["name"], running, info["pid"] or None, "" if running else ending)

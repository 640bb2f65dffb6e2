"""A stack on one machine: broker, store, simulators and services as local processes, started, watched and stopped.

Ports are free ones, everything written lies in one folder, nothing outlives whoever started it (unless it lets go).
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from deploy.embedded.catalogue import CLOCK_FILE, OUTSIDE_FOLDER, Catalogue
from deploy.embedded.foundation import Embedded, Foundation
from deploy.embedded.keeper import AFTERWARDS, LET_GO
from deploy.embedded.ports import accepts
from deploy.embedded.supervision import UNANSWERED, Group, Keeper, Process, Program, configuration

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = ROOT / ".data" / "embedded"

FOUNDATION = ("broker", "store")
"""The programs that everything else stands on; tests of the kit need no more."""

START_SECONDS = 180.0
"""How long a group of processes may take to become ready, on a laptop that is busy with other things."""

STOP_SECONDS = 90.0
"""How long the whole stack may take to stop in good order before it is killed."""

_KEEPER = Path(__file__).with_name("keeper.py")
_MARKER = "stack.lock"
_STATE = "stack.json"
_FOLDERS = (OUTSIDE_FOLDER, "logs", "traces")
_FILES = (CLOCK_FILE, "keeper.conf", "keeper.pid", "keeper.sock", _STATE)
_LOG_LINES = 30
_SOCKET_PATH_LIMIT = 100  # sun_path holds 104 bytes on macOS, 108 on Linux


class StackError(RuntimeError):
    """The stack did not start, or a process of it died. Says which, and what it last logged."""


class Stack:
    """The stack in one folder. A context manager: ready inside the block, gone after it.

    ``foundation`` is what it stands on (the embedded one by default); ``only`` names the programs to run (all by
    default); ``environment`` is added to every service's; ``apart``, every role is a process of its own, called as in
    ``deploy.roles``, and a service's address is its API's. What earlier runs left in ``folder`` is removed at the
    start: the embedded broker keeps its topics in memory, and a store that remembers more than the broker would wait
    for events that are gone.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        foundation: Foundation | None = None,
        only: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        foundation = foundation or Embedded()
        self._folders = (*foundation.folders, *_FOLDERS)
        self._afterwards = foundation.afterwards(self.folder)
        catalogue = Catalogue(self.folder, foundation, environment or {}, apart=apart)
        known = {program.name: program for program in catalogue.programs()}
        if unknown := set(only or ()) - set(known):
            raise StackError(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        self._programs = {name: program for name, program in known.items() if only is None or name in only}
        self.addresses: dict[str, str] = catalogue.addresses()
        self._keeper: Keeper | None = None
        self._starter: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._stopped: set[str] = set()

    # -- what a user of the stack reads ---------------------------------------------------------------------

    @property
    def broker_address(self) -> str:
        """``host:port`` of the Kafka-protocol broker."""
        return self.addresses["broker"]

    @property
    def mongodb_uri(self) -> str:
        """The store's URI."""
        return self.addresses["store"]

    def url(self, name: str) -> str:
        """The base URL of a service, or of a simulator (``issuer``, ``payer``, ``gateway``)."""
        return self.addresses[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The programs of this stack in the order they are started."""
        return tuple(self._programs)

    @property
    def services(self) -> tuple[str, ...]:
        """The services among them, or their roles where these are apart."""
        return tuple(name for name, program in self._programs.items() if program.group is Group.services)

    def environment(self, name: str) -> Mapping[str, str]:
        """What a program is told beside the starter's own environment."""
        return self._programs[name].environment

    @property
    def clock_offset_file(self) -> Path:
        """The offset of domain time that the services share (``shared.kit.clock.OffsetClock``)."""
        return self.folder / CLOCK_FILE

    @property
    def traces(self) -> Path:
        """The folder with each service's exported spans, ``<service>.jsonl``."""
        return self.folder / "traces"

    @property
    def outside(self) -> Path:
        """The simulators' folder: ledgers, letters, the issuer's key."""
        return self.folder / OUTSIDE_FOLDER

    def token(self, *roles: str, subject: str = "developer", ttl: timedelta = timedelta(hours=8)) -> str:
        """A bearer token of the development issuer. Raises StackError for a role that there is not."""
        # Here, because a stack of broker and store alone needs neither, and both are slow to import.
        from deploy.simulators.issuer import Issuer
        from shared.kit.auth import Role

        known = [str(role) for role in Role]
        for role in roles:
            if role not in known:
                raise StackError(f"there is no role {role}; there are {', '.join(known)}")
        return Issuer(self.outside / "issuer").mint(*roles, subject=subject, ttl=ttl)

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.folder / "logs" / f"{name}.log"

    # -- its life -------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until it is ready. Raises StackError, having stopped what was started."""
        try:
            self._start_keeper()
            for group in Group:
                names = [name for name, program in self._programs.items() if program.group is group]
                for name in names:
                    self._running_keeper().start(name)
                self.wait_ready(names)
        except BaseException:
            self.stop()
            raise

    def let_go(self) -> None:
        """Leave the stack running after this process; ``Stack.attach(folder).stop()`` ends it."""
        if self._starter is None or self._starter.stdin is None:
            return
        self._starter.stdin.write(LET_GO)
        self._starter.stdin.close()
        self._starter = None

    @classmethod
    def attach(cls, folder: Path = DEFAULT_FOLDER) -> Stack | None:
        """The stack that runs in ``folder``, or None where none does."""
        state_file = folder.resolve() / _STATE
        if not state_file.is_file():
            return None
        state = json.loads(state_file.read_text())
        stack = cls.__new__(cls)
        stack.folder = folder.resolve()
        stack.addresses = state["addresses"]
        stack._programs = {
            entry["name"]: Program(
                entry["name"],
                Group[entry["group"]],
                (),
                {},
                tuple(entry["ports"]),
                tuple(entry["ready"]),
                signal=tuple(entry["signal"]),
                sign=Path(entry["sign"]) if entry["sign"] else None,
            )
            for entry in state["programs"]
        }
        stack._starter = None
        stack._stopped = set()
        stack._socket_folder = Path(state["socket"]).parent if state["socket_folder"] else None
        stack._keeper = stack._connect(Path(state["socket"]))
        return stack if stack._keeper.answers() else None

    def stop(self) -> None:
        """Stop everything: services first, then simulators, then broker and store. Never raises for what is gone."""
        if self._keeper is not None:
            with suppress(*UNANSWERED):
                self._keeper.shutdown()
        if self._starter is not None:
            self._end_starter(self._starter)
        elif self._keeper is not None:
            self._await_lock()
        self._keeper = self._starter = None
        (self.folder / _STATE).unlink(missing_ok=True)
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    # -- faults ---------------------------------------------------------------------------------------------

    def processes(self) -> dict[str, Process]:
        """Every process by name, as it is now."""
        try:
            return self._running_keeper().processes()
        except UNANSWERED as gone:
            raise StackError(f"the keeper is gone\n{self._last_lines('keeper')}") from gone

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to a process and return when it is gone. Nothing starts it again but ``restart``."""
        process = self.processes()[name]
        self._stopped.add(name)
        if process.running and (send := self._programs[name].signal):
            subprocess.run([*send, str(int(signal_number))], cwd=ROOT, check=True)
        elif process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal_number)
        self._until(lambda: not self.processes()[name].running, f"{name} ended by signal {signal_number}")

    def restart(self, name: str) -> None:
        """Start a process again, stopping it first if it runs, on the ports it had; returns when it is ready."""
        keeper = self._running_keeper()
        keeper.stop(name)
        self._stopped.discard(name)
        keeper.start(name)
        self.wait_ready([name])

    def check(self) -> None:
        """Raise StackError if a process has died that nobody stopped."""
        for process in self.processes().values():
            if not process.running and process.name not in self._stopped:
                raise StackError(self._obituary(process))

    def wait_ready(self, names: Iterable[str]) -> None:
        """Return when the named processes are ready. Raises StackError when one dies or takes too long."""
        waiting = list(names)
        end = time.monotonic() + START_SECONDS
        while waiting:
            waiting = [name for name in waiting if not _is_ready(self._programs[name])]
            known = self.processes()
            for name in waiting:
                if not known[name].running:
                    raise StackError(self._obituary(known[name]))
            if waiting and time.monotonic() > end:
                raise StackError(
                    f"not ready after {START_SECONDS:.0f} s: {', '.join(waiting)}\n" + self._last_lines(waiting[0])
                )
            if waiting:
                time.sleep(0.05)

    # -- inside ---------------------------------------------------------------------------------------------

    def _start_keeper(self) -> None:
        lock = self._take_folder()
        try:
            socket_file = self._socket_file()
            config = self.folder / "keeper.conf"
            config.touch(mode=0o600)  # it holds the services' environment
            config.write_text(configuration(self._programs.values(), self.folder, socket_file, ROOT))
            self._write_state(socket_file)
            self._starter = subprocess.Popen(
                [sys.executable, str(_KEEPER), "-n", "-c", str(config)],
                cwd=ROOT,
                env={**os.environ, AFTERWARDS: json.dumps(self._afterwards)},
                stdin=subprocess.PIPE,
                stdout=(self.folder / "logs" / "keeper.out").open("wb"),
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the terminal reaches the starter alone, which then stops in order
                pass_fds=(lock,),  # held as long as the keeper lives: two stacks never share a folder
            )
        finally:
            os.close(lock)
        keeper = self._connect(socket_file)
        self._until(keeper.answers, "the keeper answers")
        self._keeper = keeper

    def _take_folder(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / _MARKER
        if not marker.exists() and any(self.folder.iterdir()):
            raise StackError(f"{self.folder} holds other things; give the stack a folder of its own")
        lock = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as taken:
            os.close(lock)
            raise StackError(f"a stack already runs in {self.folder}; `make down` stops it") from taken
        for name in (*self._folders, *_FILES):
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in self._folders:
            (self.folder / name).mkdir()
        # Before anybody maps it: processes that start at once must not each make their own.
        self.clock_offset_file.write_bytes(struct.pack("<d", 0.0))
        return lock

    def _socket_file(self) -> Path:
        path = self.folder / "keeper.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        self._socket_folder = Path(tempfile.mkdtemp(prefix="carerelay-"))
        return self._socket_folder / "keeper.sock"

    def _write_state(self, socket_file: Path) -> None:
        programs = [
            {
                "name": p.name,
                "group": p.group.name,
                "ports": list(p.ports),
                "ready": list(p.ready),
                "signal": list(p.signal),
                "sign": str(p.sign) if p.sign else None,
            }
            for p in self._programs.values()
        ]
        state = {
            "socket": str(socket_file),
            "socket_folder": self._socket_folder is not None,
            "addresses": self.addresses,
            "programs": programs,
        }
        (self.folder / _STATE).write_text(json.dumps(state, indent=2))

    def _connect(self, socket_file: Path) -> Keeper:
        return Keeper(socket_file, {name: program.group.name for name, program in self._programs.items()})

    def _running_keeper(self) -> Keeper:
        if self._keeper is None:
            raise StackError("the stack is not running")
        return self._keeper

    def _until(self, met: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not met():
            if self._starter is not None and self._starter.poll() is not None:
                raise StackError(f"the keeper ended\n{self._last_lines('keeper')}")
            if time.monotonic() > end:
                raise StackError(f"waited {START_SECONDS:.0f} s in vain until {what}")
            time.sleep(0.02)

    def _end_starter(self, starter: subprocess.Popen[bytes]) -> None:
        if starter.stdin is not None and not starter.stdin.closed:
            # The keeper sees the end of its input and stops everything, also where it never answered.
            starter.stdin.close()
        try:
            starter.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            starter.kill()  # its children are on a leash and go with it
            starter.wait()

    def _await_lock(self) -> None:
        """Wait until the keeper of a stack that another process started is gone."""
        with (self.folder / _MARKER).open("rb") as marker:
            end = time.monotonic() + STOP_SECONDS
            while time.monotonic() < end:
                with suppress(OSError):
                    fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                time.sleep(0.05)
        raise StackError(f"the stack in {self.folder} did not stop within {STOP_SECONDS:.0f} s")

    def _obituary(self, process: Process) -> str:
        return f"{process.name} died: {process.ending}\n{self._last_lines(process.name)}"

    def _last_lines(self, name: str) -> str:
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        shown = "\n".join(f"    {line}" for line in lines[-_LOG_LINES:]) or "    (nothing)"
        return f"the last lines of {log}:\n{shown}"


def _is_ready(program: Program) -> bool:
    if program.sign is not None and not program.sign.exists():
        return False
    return all(accepts(port) for port in program.ports) and all(_answers(url) for url in program.ready)


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

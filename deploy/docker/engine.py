"""The container engine, as far as tests and the containers stack need it: by testcontainers, on this machine.

``python -m deploy.docker.engine hold|signal|remove``: what the process manager of a stack runs for each container.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from deploy.embedded.ports import LOOPBACK

STOP_SECONDS = 15
_LOOK_EVERY = 0.2

_LABEL = "carerelay.stack"

# Its reaper would remove a container that a test has killed, with the data that must outlive that. What a stack leaves
# behind is removed by the process that outlives all others of it: ``deploy.embedded.keeper``.
testcontainers_config.ryuk_disabled = True


class Missing(Exception):
    """No engine answers, or an image cannot be had; says which."""


def client() -> Any:
    """The engine's client. Raises Missing where none answers."""
    try:
        found = DockerClient().client
        found.ping()
    except DockerException as error:
        raise Missing("no container engine answers") from error
    return found


def ensure_image(engine: Any, image: str) -> None:
    """Have an image here, pulled if need be. Raises Missing."""
    try:
        engine.images.get(image)
    except NotFound:
        try:
            engine.images.pull(image)
        except DockerException as error:
            raise Missing(f"the image {image} is not here and cannot be pulled") from error


def hold(folder: Path, name: str, spec: dict[str, Any]) -> int:
    """Run a container in the foreground: its status. One that was killed goes on with its data when held again.

    ``folder`` is where its id is noted, and the sign that it is ready. ``spec`` has ``image``, ``ports`` (of this
    machine, by its own), ``environment``, ``tmpfs``, ``test`` (the command that says, inside, whether it is ready), and
    ``options``: what else the engine is told.
    """
    container = _start(folder / f"{name}.id", _name(folder, name), spec, str(folder))
    sign = sign_of(folder, name)

    def stop(number: int, frame: FrameType | None) -> None:
        container.stop(timeout=STOP_SECONDS)

    signal.signal(signal.SIGTERM, stop)
    Thread(target=_tell_when_ready, args=(container, spec["test"], sign), daemon=True).start()
    since = container.attrs["State"]["StartedAt"]
    for line in container.logs(stream=True, follow=True, since=datetime.fromisoformat(since[:19])):
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
    sign.unlink(missing_ok=True)
    return int(container.wait()["StatusCode"])


def sign_of(folder: Path, name: str) -> Path:
    """The file that is there while a container that is held is ready for work."""
    return folder / f"{name}.ready"


def _tell_when_ready(container: Container, test: list[str], sign: Path) -> None:
    """Its port on this machine is the engine's and accepts connections before there is anybody inside."""
    with suppress(DockerException):  # it ended; who holds it sees that
        while container.exec_run(test).exit_code != 0:
            time.sleep(_LOOK_EVERY)
        sign.touch()


def _name(folder: Path, name: str) -> str:
    """A container's name: two stacks never share a folder."""
    return f"carerelay-{hashlib.sha256(str(folder).encode()).hexdigest()[:10]}-{name}"


def _start(note: Path, name: str, spec: dict[str, Any], label: str) -> Container:
    engine = client()
    if note.exists():
        known: Container = engine.containers.get(note.read_text())
        known.start()
        known.reload()
        return known
    with suppress(NotFound):  # of an earlier stack in this folder, whose keeper was killed
        engine.containers.get(name).remove(force=True, v=True)
    fresh = DockerContainer(spec["image"]).with_name(name).with_envs(**spec["environment"])
    fresh.with_kwargs(labels={_LABEL: label}, **spec["options"])
    for path in spec["tmpfs"]:
        fresh.with_tmpfs_mount(path)
    fresh.ports = {str(inner): (LOOPBACK, port) for inner, port in spec["ports"].items()}
    made = fresh.start().get_wrapped_container()
    made.reload()
    note.write_text(made.id)
    return made


def send(folder: Path, name: str, number: int) -> None:
    """Send a container's process a signal."""
    client().containers.get((folder / f"{name}.id").read_text()).kill(number)


def remove(folder: Path) -> None:
    """Remove what a stack ran in this folder, with its data."""
    for container in client().containers.list(all=True, filters={"label": f"{_LABEL}={folder}"}):
        container.remove(force=True, v=True)


def main() -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.docker.engine", description=__doc__)
    parser.add_argument("command", choices=("hold", "signal", "remove"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("detail", nargs="?", default="", help="what to hold, as JSON; a signal's number")
    given = parser.parse_args()
    try:
        if given.command == "hold":
            return hold(given.folder, given.name, json.loads(given.detail))
        if given.command == "signal":
            send(given.folder, given.name, int(given.detail))
        else:
            remove(given.folder)
    except (Missing, DockerException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m deploy.docker.demo [--bundles DIR]``: plays the demo's patients through the containers of compose.

It runs in their network and needs two of their volumes: the shared clock's, and the simulators' with the issuer's key.
Every container of every role is asked how it is, also where a role has been scaled.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from deploy.demo.performance import NoStage, Stage, arguments, perform
from deploy.docker.roles import PROCESSES, container_of
from deploy.simulators.issuer import Issuer

_PORT = 8000
_PATIENCE = 240.0
"""As many processes as these share a laptop's cores with whatever else runs there."""

_OUTSIDE = {"payer": "http://payer:8081", "gateway": "http://gateway:8082", "issuer": "http://issuer:8000"}


def containers(name: str) -> list[str]:
    """The addresses of the containers that a role has now. Raises NoStage where it has none."""
    try:
        found = socket.getaddrinfo(name, _PORT, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError as unknown:
        raise NoStage(f"no container of {name} is there; `docker compose up --wait` starts them") from unknown
    return sorted({str(address[0]) for *_, address in found})


@contextmanager
def _standing(issuer: Path, clock: Path, console: Console) -> Iterator[Stage]:
    urls = dict(_OUTSIDE)
    processes: dict[str, list[str]] = {}
    for service, roles in PROCESSES.items():
        urls[service] = f"http://{container_of(service, 'api')}:{_PORT}"
        found = [f"http://{address}:{_PORT}" for role in roles for address in containers(container_of(service, role))]
        processes[service] = found
        urls |= {url: url for url in found}
    number = sum(map(len, processes.values()))
    console.print(f"playing through {number} processes of {len(processes)} services ...", highlight=False)
    run = int(time.time())
    yield Stage(urls, Issuer(issuer).mint, clock, processes, run=run, patience=_PATIENCE)


def main(given: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code says whether all referrals ended as expected."""
    parser = arguments("python -m deploy.docker.demo", __doc__)
    parser.add_argument("--outside", type=Path, default=Path("/data"), help="the simulators' folder")
    options = parser.parse_args(given)
    clock = Path(os.environ["CLOCK_OFFSET_FILE"])
    return perform(partial(_standing, options.outside / "issuer", clock), options.bundles)


if __name__ == "__main__":
    sys.exit(main())

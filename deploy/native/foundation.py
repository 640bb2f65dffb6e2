"""Apache Kafka and ``mongod`` (or ``secantusd-rs``) as the foundation of a stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.embedded.ports import LOOPBACK
from deploy.embedded.supervision import Group, Program
from deploy.native import artifacts


class Native:
    """One Kafka node in KRaft mode and one store. Making one raises Missing or BuildFailed where it cannot be had."""

    name = "native"
    ports: tuple[str, ...] = ("broker", "controller", "store")
    folders = ("broker", "store")
    environment = {"KAFKA_PARTITIONS": "12", "KAFKA_IDEMPOTENCE": "true"}

    def __init__(self) -> None:
        self.jars = artifacts.kafka()
        self._store_program = artifacts.store()

    def programs(self, folder: Path, ports: Mapping[str, int]) -> tuple[Program, ...]:
        """Broker and store as two processes."""
        return self._broker(folder / "broker", ports), self._store(folder / "store", ports["store"])

    def afterwards(self, folder: Path) -> tuple[str, ...]:
        """Nothing is left behind."""
        return ()

    def _broker(self, folder: Path, ports: Mapping[str, int]) -> Program:
        argv = [sys.executable, "-m", "deploy.native.broker", "--jars", str(self.jars), "--folder", str(folder)]
        argv += ["--host", LOOPBACK, "--port", str(ports["broker"]), "--controller-port", str(ports["controller"])]
        return Program("broker", Group.foundation, argv, {}, [ports["broker"]])

    def _store(self, data: Path, port: int) -> Program:
        environment: dict[str, str] = {}
        if self._store_program.name == "mongod":
            argv = ["--dbpath", str(data), "--bind_ip", LOOPBACK, "--port", str(port), "--quiet"]
            argv += ["--wiredTigerCacheSizeGB", "1"]
        else:
            argv = ["--storage-path", str(data), "--host", LOOPBACK, "--port", str(port), "--log-level", "WARNING"]
            argv += ["--sync-on-commit", "--cache-size", "1G"]
            environment["SECANTUS_DISABLE_OPLOG"] = "1"  # Nobody reads change streams; they cost a quarter of a write.
        return Program("store", Group.foundation, [str(self._store_program), *argv], environment, [port])

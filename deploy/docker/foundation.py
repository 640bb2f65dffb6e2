"""Kafka and MongoDB in containers as the foundation of a stack: the images and settings of ``compose.yaml``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.docker import compose, engine
from deploy.embedded.ports import LOOPBACK
from deploy.embedded.supervision import Group, Program

_FOLDER = "containers"
_AS_IN_COMPOSE = ("cap_drop", "security_opt", "user", "read_only")


class Containers:
    """One Kafka node and one store without users. Raises ``deploy.docker.engine.Missing`` where they cannot be had."""

    name = "containers"
    ports = ("broker", "store")
    folders = (_FOLDER,)
    environment = {"KAFKA_PARTITIONS": "12", "KAFKA_IDEMPOTENCE": "true"}

    def __init__(self) -> None:
        services = compose.read()["services"]
        self._broker, self._store = services["kafka"], services["mongo"]
        running = engine.client()
        for service in (self._broker, self._store):
            engine.ensure_image(running, service["image"])

    def programs(self, folder: Path, ports: Mapping[str, int]) -> tuple[Program, ...]:
        """Broker and store, each a container and the process that holds it."""
        advertised = f"INTERNAL://localhost:9092,EXTERNAL://{LOOPBACK}:{ports['broker']}"
        broker = {**self._broker["environment"], "KAFKA_ADVERTISED_LISTENERS": advertised}
        broker |= {"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0"}
        home = {"HOME": self._store["environment"]["HOME"]}
        return (
            _program("broker", folder, self._broker, broker, {9094: ports["broker"]}),
            _program("store", folder, self._store, home, {27017: ports["store"]}),
        )

    def afterwards(self, folder: Path) -> tuple[str, ...]:
        """Containers outlive the processes that hold them."""
        return (sys.executable, "-m", "deploy.docker.engine", "remove", str(folder / _FOLDER))


def _program(
    name: str, folder: Path, service: Mapping[str, Any], environment: Mapping[str, str], ports: Mapping[int, int]
) -> Program:
    options = {key: service[key] for key in _AS_IN_COMPOSE if key in service}
    spec = {
        "image": service["image"],
        "ports": ports,
        "environment": environment,
        "tmpfs": service.get("tmpfs", []),
        "test": service["healthcheck"]["test"][1:],
        "options": options,
    }
    command = [sys.executable, "-m", "deploy.docker.engine"]
    place = [str(folder / _FOLDER), name]
    return Program(
        name,
        Group.foundation,
        [*command, "hold", *place, json.dumps(spec)],
        {},
        tuple(ports.values()),
        stop_seconds=engine.STOP_SECONDS + 10,
        signal=(*command, "signal", *place),
        sign=engine.sign_of(folder / _FOLDER, name),
    )

"""``python -m deploy.native.broker``: becomes one Kafka node that is broker and controller, on data of its own.

The first start formats the data folder; later ones go on with what is there, also after a kill -9.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from deploy.native.artifacts import java

_CLUSTER = "Y2FyZXJlbGF5LW5hdGl2ZQ"
"""A cluster id is 16 bytes in base64; this one says carerelay-native."""

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=12
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""

_LOGGING = """\
Configuration:
  Appenders:
    Console:
      name: out
      PatternLayout: {pattern: "%d %p %c{1} %m%n"}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
"""

_HEAP = "1g"


def main() -> None:
    """Format if need be, then become the broker."""
    parser = argparse.ArgumentParser(prog="python -m deploy.native.broker", description=__doc__)
    parser.add_argument("--jars", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where configuration and data go")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--controller-port", type=int, required=True)
    parser.add_argument("--more", type=Path, help="a file of properties that override its own")
    given = parser.parse_args()
    data = given.folder / "data"
    properties, logging = given.folder / "server.properties", given.folder / "log4j2.yaml"
    places = {"host": given.host, "port": given.port, "controller": given.controller_port, "data": data}
    more = given.more.read_text() if given.more else ""
    properties.write_text(_PROPERTIES.format(**places) + more)
    logging.write_text(_LOGGING)
    run = [java(), f"-Xms{_HEAP}", f"-Xmx{_HEAP}", f"-Dlog4j2.configurationFile={logging}", "-cp", f"{given.jars}/*"]
    if not (data / "meta.properties").exists():
        formatting = ["kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER, "--config", str(properties)]
        subprocess.run([*run, *formatting], check=True)
    os.execv(run[0], [*run, "kafka.Kafka", str(properties)])  # noqa: S606 - it is to become that process


if __name__ == "__main__":
    main()

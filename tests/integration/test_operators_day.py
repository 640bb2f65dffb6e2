"""A day in the life of an operator: an event that the code cannot take, the alert, why, the mended code, the replay.

On a real broker and store, with the service as a process and carectl as a command, in well under a minute.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from deploy.embedded.foundation import Foundation
from deploy.embedded.ports import free_ports
from services.directory.model.handoff import Person
from shared.contracts.intake import PersonAddress, PersonChanged
from shared.kit.auth import Role
from shared.kit.bus.envelope import message_of
from shared.kit.bus.kafka import KafkaBus
from shared.kit.metrics import CONSUMED, PARKED_KEYS, prometheus_name
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import EPOCH
from shared.kit.store.repository import Entry
from shared.kit.testing.tokens import AUDIENCE, ISSUER
from tests.integration.chair import Carectl, Outside, Point, outside, process

GROUP = "directory.person"
CANARY = "Synthea-Canary"
RULES = Path(__file__).resolve().parents[2] / "deploy" / "observability" / "prometheus"
ALERT = "CareRelayKeyParked"
MINUTE = 60.0

needs_promtool = shutil.which("promtool")


@dataclass(frozen=True)
class Desk:
    """What the operator of one service has before him."""

    outside: Outside
    bus: KafkaBus
    store: MongoStore
    carectl: Carectl
    environment: dict[str, str]
    taken: Path

    async def publish(self, patient: str, first: int, postal_codes: Sequence[str]) -> None:
        """Have intake tell of a person again and again, each time at another address."""
        messages = []
        for sequence, code in enumerate(postal_codes, first):
            event = PersonChanged(
                patient_id=patient,
                family=CANARY,
                given=("Ana",),
                birth_date=date(1961, 4, 12),
                gender="female",
                address=PersonAddress(lines=("12 Example Street",), city="Chicago", state="IL", postal_code=code),
            )
            data = event.model_dump_json(exclude_none=True)
            entry = Entry(sequence, str(uuid4()), event.type, event.topic, datetime.now(UTC), data, None)
            messages.append(message_of("intake", patient, entry))
        assert await self.bus.publish(messages) == [None] * len(messages)

    def in_order(self) -> list[str]:
        """The postal codes as they were taken; deciding on one again, beside a poison or after a race, counts once."""
        return list(dict.fromkeys(self.taken.read_text(encoding="utf-8").split())) if self.taken.exists() else []

    async def stored(self, people: Sequence[str]) -> dict[str, Any]:
        """What the service holds of these people; other tests' are on the same topics."""
        return {raw["_id"]: raw for raw in await self.store.load(Person.collection, people)}


@pytest.fixture
async def desk(broker_address: str, mongodb_uri: str, stack_kind: Foundation, tmp_path: Path) -> AsyncIterator[Desk]:
    (port,) = free_ports(1)
    database = f"operator-{uuid4().hex[:12]}"
    bus = KafkaBus(broker_address, partitions=3, idempotence=stack_kind.environment["KAFKA_IDEMPOTENCE"] == "true")
    await bus.ensure([PersonChanged.topic])
    await bus.start()
    store = MongoStore(mongodb_uri, database)
    with outside() as world:
        environment = {
            **stack_kind.environment,
            "KAFKA_BOOTSTRAP_SERVERS": broker_address,
            "KAFKA_PARTITIONS": "3",
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": database,
            "HTTP_PORT": str(port),
            "JWKS_URL": f"{world.url}/.well-known/jwks.json",
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "OTEL_EXPORTER_OTLP_ENDPOINT": world.url,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "SIGNALS_SECONDS": "0.5",
            "TAKEN": str(tmp_path / "taken"),
        }
        asking = {
            "CARECTL_SERVICES": f"directory=http://127.0.0.1:{port}",
            "CARECTL_TOKEN": world.issuer.token(Role.OPERATOR, subject="olga"),
        }
        yield Desk(world, bus, store, Carectl(asking), environment, tmp_path / "taken")
    await bus.stop()
    await store.close()


def parked_keys(export: Sequence[Point]) -> float:
    """How many keys of the group are parked, as a process exports it; 0 where it says nothing of it."""
    group = PARKED_KEYS.attributes[0]
    found = [value for name, about, value in export if name == PARKED_KEYS.name and about.get(group) == GROUP]
    return max(found, default=0.0)


def consumed(export: Sequence[Point]) -> float:
    """How many events the group has taken in since its process started."""
    return sum(value for name, about, value in export if name == CONSUMED.name and GROUP in about.values())


def alert() -> tuple[str, float]:
    """The recorded name that the alert looks at, and the value above which it fires, as its rule says."""
    rules = yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    (rule,) = [rule for group in rules for rule in group["rules"] if rule.get("alert") == ALERT]
    name, sign, threshold = rule["expr"].split()
    assert sign == ">"
    recorded = yaml.safe_load((RULES / "recording.yml").read_text(encoding="utf-8"))["groups"]
    (record,) = [rule for group in recorded for rule in group["rules"] if rule.get("record") == name]
    assert prometheus_name(PARKED_KEYS) in record["expr"]
    return name, float(threshold)


def promtool_fires(values: Sequence[float], folder: Path) -> None:
    """Have promtool play what was measured to the rules: the alert fires while it is above, and not behind it."""
    series = f'{prometheus_name(PARKED_KEYS)}{{job="carerelay/directory",messaging_consumer_group_name="{GROUP}"}}'
    before, after = (value for value in values)
    labels = {"severity": "warning", "job": "carerelay/directory", "messaging_consumer_group_name": GROUP}
    fires = {"eval_time": "3m", "alertname": ALERT, "exp_alerts": [{"exp_labels": labels}]}
    rests = {"eval_time": "8m", "alertname": ALERT, "exp_alerts": []}
    test = {
        "interval": "15s",
        "input_series": [{"series": series, "values": f"{before:g}x12 {after:g}x24"}],
        "alert_rule_test": [fires, rests],
    }
    rules = [str(RULES / "recording.yml"), str(RULES / "alerts.yml")]
    file = folder / "measured.yml"
    # Without annotations promtool compares labels alone only where the rule has none: ours are taken from the rule.
    loaded = yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    (rule,) = [each for group in loaded for each in group["rules"] if each.get("alert") == ALERT]
    said = rule["annotations"]
    summary = said["summary"].replace("{{ $labels.messaging_consumer_group_name }}", GROUP)
    fires["exp_alerts"] = [
        {
            "exp_labels": labels,
            "exp_annotations": {**said, "summary": summary.replace("{{ $value }}", f"{before:g}")},
        }
    ]
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "15s", "tests": [test]}), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_poison_event_is_told_of_understood_mended_and_replayed_in_order(desk: Desk, tmp_path: Path) -> None:
    ana, ben = str(uuid4()), str(uuid4())
    loop = asyncio.get_running_loop()
    async with process("tests.integration.flawed", {**desk.environment, "FLAWED": "1"}):
        # An event arrives that the code cannot take; later ones of its key are held, other keys go on.
        began = loop.time()
        await desk.publish(ana, 1, ["60601-1234", "60602"])
        await desk.publish(ben, 1, ["60701"])
        export = await desk.outside.until(lambda export: parked_keys(export) > 0)
        await desk.publish(ana, 3, ["60603"])
        await desk.publish(ben, 2, ["60702"])

        # The alert's own rule is about what this process exports, and fires at the value that it exports.
        _, threshold = alert()
        assert parked_keys(export) > threshold
        status = await desk.carectl.told("status", expect=1)
        assert ("parked", "directory") in {
            (each["code"], each["subject"]) for each in status["services"][0]["problems"]
        }

        # carectl tells why, and nobody's data.
        (key,) = (await desk.carectl.told("parked", "list", "--group", GROUP))["keys"]
        code, said = await desk.carectl("parked", "show", key["id"])
        assert code == 0
        assert "ValueError at flawed.py" in said
        assert "person.changed.v1" in said
        shown = await desk.carectl.told("parked", "show", key["id"])
        assert shown["entries"][0]["reason"].startswith("person.changed.v1: ValueError at flawed.py")
        assert {entry["reason"] for entry in shown["entries"][1:]} == {"waits behind an earlier event"}
        for personal in (CANARY, "60601", "1961", "Example Street"):
            assert personal not in said + json.dumps(shown) + json.dumps(key)
        assert desk.in_order() == ["60701", "60702"]

    async with process("tests.integration.flawed", desk.environment):
        # The code is mended: what would be replayed is shown, then it is, in order, and what came later behind it.
        (dry,) = (await desk.carectl.told("parked", "replay", "--reason", "ValueError", "--dry-run"))["keys"]
        assert (dry["id"], dry["events"], dry["done"]) == (key["id"], 3, False)
        (done,) = (await desk.carectl.told("parked", "replay", "--reason", "ValueError"))["keys"]
        assert (done["done"], done["refused"]) == (True, None)
        after = await desk.outside.until(lambda export: bool(export) and parked_keys(export) == 0)
        assert desk.in_order()[2:] == ["60601-1234", "60602", "60603"]
        assert (await desk.carectl.told("parked", "list"))["keys"] == []
        took = loop.time() - began
        status = await desk.carectl.told("status")
        assert [each["life"] for each in status["services"][0]["processes"]] == ["stopped", "running"]
        code, said = await desk.carectl("parked", "replay", key["id"])
        assert code == 5, said
    print(f"from the poison event to the last of its key: {took:.1f} s")
    assert took < MINUTE
    entries = await desk.store.find("audit", {})
    orders = [entry for entry in entries if entry["action"] != "read"]
    told = [(entry["caller"], entry["action"], entry["ids"]) for entry in orders]
    assert told == [("olga", "parked.replay", [key["id"]])] * 2, "the one that was refused is on record, too"
    assert CANARY not in str(entries)
    if needs_promtool:
        promtool_fires([parked_keys(export), parked_keys(after)], tmp_path)


async def test_a_group_that_reads_everything_again_changes_nothing_and_a_stranger_may_not_ask_for_it(
    desk: Desk,
) -> None:
    people = [str(uuid4()) for _ in range(20)]
    async with process("tests.integration.flawed", desk.environment):
        for person in people:
            await desk.publish(person, 1, ["60601", "60602"])
        await desk.outside.until(lambda export: consumed(export) >= 2 * len(people))
        while len(await desk.stored(people)) < len(people):
            await desk.outside.until(bool)
        while await desk.store.count(Person.collection, {"unsent": {"$gte": EPOCH}}):
            await desk.outside.until(bool)
        before = await desk.stored(people)
        assert set(before) == set(people)

        stranger = Carectl(
            {**desk.carectl.environment, "CARECTL_TOKEN": desk.outside.issuer.token(Role.COORDINATOR, Role.AUDITOR)}
        )
        for words in (("replay", GROUP, "--from", "1d", "--yes"), ("status",), ("topics", "ensure")):
            code, said = await stranger(*words)
            assert code == 4, said
        code, said = await desk.carectl("replay", GROUP, "--from", "yesterday", "--yes")
        assert code == 2, said
        code, said = await desk.carectl("replay", GROUP, "--from", "1d")
        assert code == 2, "nobody is there to answer, so it has to be said"

        dry = await desk.carectl.told("replay", GROUP, "--from", "1d", "--dry-run")
        assert dry["records"] >= 2 * len(people)
        first = consumed(await desk.outside.until(bool))
        ordered = await desk.carectl.told("replay", GROUP, "--from", "1d", "--yes")
        assert ordered["records"] == dry["records"]
        await desk.outside.until(lambda export: consumed(export) >= first + ordered["records"])
        assert await desk.stored(people) == before
        code, said = await desk.carectl("topics", "check", "--json")
        topics = json.loads(said)["topics"]
        assert topics
        # The broker is other tests' too, whose topics may have other partitions.
        assert code == (1 if any(topic["problem"] for topic in topics) else 0), said
        code, said = await desk.carectl("story", people[0])
        assert code == 0
        assert "person.located.v1" in said
        assert CANARY not in said

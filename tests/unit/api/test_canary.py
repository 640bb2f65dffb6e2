"""Canaries: every personal thing of every patient is a text found nowhere else, and is looked for where none may be.

The demo's patients go through all services; beside them come requests and events that are wrong in every way, with
canaries in values, names, addresses and headers. Then everything that an outsider, an operator or a log reader could
see is searched.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI, Request
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deploy.demo.cases import DEFAULT_FOLDER, Case, load, resources
from deploy.demo.player import Story, play_all
from deploy.demo.world import furnish
from services.intake import model as intake_model
from services.notifications.model.delivery import DeliveryState
from services.prior_authorization import model as authorization_model
from services.referrals import model as referrals_model
from services.webhooks.reactions import SUBSCRIBABLE
from shared.contracts.snapshot import EXAMPLES, events
from shared.kit.auth import Role
from shared.kit.bus.port import Message
from shared.kit.document import derived_id
from shared.kit.run import arguments_of, parked
from shared.kit.telemetry import Telemetry, configure_logs
from shared.kit.testing.memory_store import MemoryStore
from tests.contract.services import WIRING
from tests.unit.api.doors import ENDPOINT, EVERY, QUERIES, Door
from tests.unit.demo.town import Town, TownConductor, url_of

EVENTS = events()


# -- the canaries ---------------------------------------------------------------------------------------------------


SHAPES = (
    re.compile(r"zanzi[a-z]*[0-9]*"),
    re.compile(r"5005559[0-9]{3}"),
    re.compile(r"(?:(?<![0-9a-f])|(?<=%7c))98765[0-9]{2}(?![0-9a-f])"),
    re.compile(r"(?<![0-9a-z.-])1947-03-[0-9]{2}(?![0-9a-z-])"),
    re.compile(r"(?<![0-9a-z.-])606[45][0-9](?![0-9a-z-])"),
)
"""What canaries look like in lower case, each led by what is found fast. A short number must stand alone."""


@dataclass(slots=True)
class Aviary:
    """Which canaries fly, and how they are recognised in a text."""

    canaries: set[str] = field(default_factory=set)

    def mark(self, text: str) -> str:
        """Let what is recognised in ``text`` be a canary."""
        found = {hit.group() for shape in SHAPES for hit in shape.finditer(text.lower())}
        assert found, f"{text} would never be recognised"
        self.canaries |= found
        return text

    def found(self, text: str) -> list[str]:
        """The canaries in a text."""
        lower = text.lower()
        hits = (hit.group() for shape in SHAPES for hit in shape.finditer(lower))
        return [hit for hit in hits if hit in self.canaries]


def marked(case: Case, nth: int, aviary: Aviary) -> Case:
    """A case whose patient has canaries for everything personal; codes, and what scripts the payer, stay."""
    bundle = json.loads(case.text)
    nest = f"{nth:02d}"
    for entry in bundle["entry"]:
        resource = entry["resource"]
        match resource["resourceType"]:
            case "Patient":
                _mark_patient(resource, nest, aviary, helped=bool(case.scenario and case.scenario.help))
            case "Coverage":
                resource["subscriberId"] = aviary.mark(re.sub(r"\d+$", f"98765{nest}", resource["subscriberId"]))
            case "RelatedPerson":
                for name in resource.get("name", ()):
                    name["family"] = aviary.mark(f"Zanzirelative{nest}")
            case "Condition" | "AllergyIntolerance" | "MedicationStatement":
                for name in ("code", "medicationCodeableConcept"):
                    if name in resource:
                        resource[name]["text"] = aviary.mark(f"zanziailment{nest}")
                resource["note"] = [{"text": aviary.mark(f"zanzinote{nest}")}]
            case "ServiceRequest":
                resource["note"] = [{"text": aviary.mark(f"zanziordernote{nest}")}]
                resource["patientInstruction"] = aviary.mark(f"zanziinstruction{nest}")
    return dataclasses.replace(case, text=json.dumps(bundle), scenario=_said(case, nest, aviary))


def _mark_patient(patient: dict[str, Any], nest: str, aviary: Aviary, *, helped: bool) -> None:
    patient["name"] = [
        {
            "use": "official",
            "family": aviary.mark(f"Zanzifamily{nest}"),
            "given": [aviary.mark(f"Zanzigiven{nest}"), aviary.mark(f"Zanzimiddle{nest}")],
            "text": aviary.mark(f"Zanziwhole{nest}"),
        }
    ]
    if "birthDate" in patient:
        patient["birthDate"] = aviary.mark(f"1947-03-{int(nest) + 10}")
    for point in patient.get("telecom", ()):
        if point["system"] == "email":
            point["value"] = aviary.mark(f"zanzimail{nest}@quetzal.example")
        else:
            point["value"] = f"+1{aviary.mark(f'50055598{nest}')}"
    for address in patient.get("address", ()):
        address["line"] = [aviary.mark(f"{nest} Zanzistreet"), aviary.mark(f"Zanziflat {nest}")]
        if not helped:  # Help is found by city, and nobody helps in a city that is made up.
            address["city"] = aviary.mark(f"Zanzicity{nest}")
        address["postalCode"] = aviary.mark(f"606{int(nest) + 40}")
    for identifier in patient.get("identifier", ()):
        identifier["value"] = aviary.mark(f"ZANZIMRN{nest}")


def _said(case: Case, nest: str, aviary: Aviary) -> Any:
    """What a patient says later is personal too."""
    if case.scenario is None:
        return None
    actions = []
    for action in case.scenario.actions:
        said = None if action.said is None else json.loads(json.dumps(action.said))
        if said and "mobile" in said:
            said["mobile"] = f"+1{aviary.mark(f'50055598{nest}')}"
        if said and "address" in said:
            said["address"] = {**said["address"], "lines": [aviary.mark(f"{nest} Zanzilater")]}
        if said and "birth_date" in said:
            said["birth_date"] = aviary.mark(f"1947-03-{int(nest) + 10}")
        actions.append(action.model_copy(update={"said": said}))
    return case.scenario.model_copy(update={"actions": actions})


# -- what could be seen ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """Everything that nobody may find a person in: where it was seen, and the text."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    strangers_ask: bool = False
    """While somebody outside asks, the address and what their client logs of it are their own doing."""

    def add(self, where: str, text: object) -> None:
        """Note it for the search."""
        self.texts.append((where, text if isinstance(text, str) else json.dumps(text, default=str)))

    def found(self, aviary: Aviary) -> list[str]:
        """Where a canary sits."""
        return [f"{where}: {canary}" for where, text in self.texts for canary in aviary.found(text)]


class _Records(logging.Handler):
    """What libraries log, from INFO on: more than the WARNING that production keeps."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(logging.INFO)
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        theirs = record.name == "mail.log" or (record.name == "httpx" and self._seen.strangers_ask)
        if not theirs:  # The simulated mail server is outside too.
            self._seen.add(f"log {record.name}", record.getMessage())


@contextmanager
def written(seen: Seen) -> Iterator[None]:
    """Notes what is logged, as in production but from DEBUG on, and whatever else is written or warned of."""
    output, errors = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    warned: list[warnings.WarningMessage]
    with redirect_stdout(output), redirect_stderr(errors), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        configure_logs("canary", "DEBUG")
        for handler in root.handlers:
            handler.setLevel(root.level)
        root.addHandler(_Records(seen))
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            structlog.reset_defaults()
            structlog.contextvars.clear_contextvars()
            root.handlers[:], root.level = handlers, level
    seen.add("standard output", output.getvalue())
    seen.add("standard error", errors.getvalue())
    for warning in warned:
        seen.add("warning", str(warning.message))
    assert '"event": "key.parked"' in output.getvalue(), "logs were not seen at all"


MAY_SHOW = re.compile(r"/patients/[^/]+(/fhir)?$|/recipients/[^/]+$")
"""What shows a person to those who may see them."""


def watch(town: Town, seen: Seen) -> None:
    """Note every address that is asked, and every answer but those that may show a person."""

    async def note(answer: httpx.Response) -> None:
        url = answer.request.url
        if url.host == httpx.URL(url_of("gateway")).host and url.path.startswith("/control"):
            return  # The patient's own telephone.
        if not seen.strangers_ask:
            seen.add(f"address {url.host}", url.raw_path.decode())
        if not url.host.endswith(".town") or url.host in {httpx.URL(url_of(n)).host for n in ("payer", "gateway")}:
            return
        await answer.aread()
        where = f"{answer.request.method} {url.host} {answer.status_code}"
        seen.add(f"headers of {where}", json.dumps(list(answer.headers.items())))
        if answer.is_error or not (answer.request.method == "GET" and MAY_SHOW.search(url.path)):
            seen.add(f"answer to {where}", answer.text)

    town.http.event_hooks["response"].append(note)


# -- bad requests ---------------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all texts and numbers in a JSON value."""
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in inside:
            yield from leaves(item, (*path, key))
    else:
        yield path


def with_leaf(value: Any, path: tuple[str | int, ...], leaf: Any) -> Any:
    """A copy with something else in one place."""
    if not path:
        return leaf
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {key: with_leaf(item, rest, leaf) if key == first else item for key, item in value.items()}
    return [with_leaf(item, rest, leaf) if at == first else item for at, item in enumerate(value)]


class Cuckoo:
    """Sends bad requests, each with a canary of its own."""

    def __init__(self, town: Town, aviary: Aviary) -> None:
        self._town = town
        self._aviary = aviary
        self._sent = 0
        self.refused = 0

    def egg(self) -> str:
        """A canary that no other request has."""
        self._sent += 1
        return f"Zanzibad{self._sent:05d}"

    async def visit(self, door: Door) -> None:
        """Everything that can be wrong with a request to this door."""
        for kind in ("Idempotency-Key", "If-Match", "traceparent", "X-Person", "Authorization"):
            egg = self.egg()
            sent = {"Idempotency-Key": f"{egg} x", "traceparent": f"00-{egg}-00"}.get(kind, egg)
            await self._ask(door, egg, door.body, headers={kind: sent})
        for place in door.places:
            egg = self.egg()
            await self._ask(door, egg, door.body, url=door.url(**{place: f"{egg}%20{egg}@x"}))
        egg = self.egg()
        await self._ask(door, egg, door.body, query=f"?{egg}={egg}&state={egg}&patient={egg}&limit={egg}&after={egg}")
        if door.body is None:
            return
        for text in ('{"%s": "%s", ', '"%s%s"', '["%s", "%s"]', '{"%s": {"%s": 1}}', "%s%s"):
            egg = self.egg()
            await self._ask(door, egg, text % (egg, egg))
        for spelled in ("{}", "{} with spaces", "{}@quetzal.example", "{}.name", "$"):
            egg = self.egg()
            await self._ask(door, egg, {**door.body, spelled.format(egg): egg})
            egg = self.egg()
            await self._ask(door, egg, {**door.body, spelled.format(egg).lower(): egg})
        for path in leaves(door.body):
            for shape in (lambda e: e, lambda e: {e: e}, lambda e: {e.lower(): e}, lambda e: [e, {e: [e]}]):
                egg = self.egg()
                await self._ask(door, egg, with_leaf(door.body, path, shape(egg)))

    async def _ask(
        self,
        door: Door,
        egg: str,
        body: Any,
        *,
        headers: Mapping[str, str] | None = None,
        url: str | None = None,
        query: str = "",
    ) -> None:
        sent = {
            "Authorization": "Bearer " + self._town.issuer.token(door.role, subject="payer-simulator"),
            "Idempotency-Key": f"bad-{self._sent}",
            "Content-Type": "application/json",
            **(headers or {}),
        }
        address = f"{url_of(door.service)}{url or door.url()}{query or QUERIES.get(str(door), '')}"
        content = body if isinstance(body, str) or body is None else json.dumps(body)
        answer = await self._town.http.request(door.method, address, content=content, headers=sent)
        assert answer.status_code < 500, f"{door}: {answer.status_code} {content}"
        if answer.is_error:
            # What was refused may be found nowhere at all; what was taken as a code is no personal thing.
            self._aviary.mark(egg)
            self.refused += 1


# -- bad events -----------------------------------------------------------------------------------------------------


def bad_messages(aviary: Aviary) -> Iterator[Message]:
    """Events of every type that cannot be taken in, with canaries in every part of a record."""
    for number, (type, event) in enumerate(EVENTS.items()):
        payload = json.loads((EXAMPLES / f"{type}.json").read_text(encoding="utf-8"))["full"]
        base = {
            "ce_specversion": "1.0",
            "ce_id": derived_id("bad", type),
            "ce_source": "/elsewhere",
            "ce_type": type,
            "ce_time": "2026-06-01T14:00:00Z",
            "ce_sequence": "1",
            "content-type": "application/json",
        }

        def made(
            kind: str,
            value: str,
            key: str | None = None,
            *,
            topic: str = event.topic,
            base: dict[str, str] = base,
            type: str = type,
            **headers: str,
        ) -> Message:
            named = key or derived_id("bad", type, kind)
            told = {**base, "ce_subject": named, **headers}
            return Message(topic, named, value.encode(), tuple((name, text.encode()) for name, text in told.items()))

        egg = aviary.mark(f"Zanzievent{number:03d}")
        good = json.dumps(payload)
        yield made("no json", f'{{"{egg}": "{egg}",')
        yield made("no object", f'"{egg}"')
        for path in leaves(payload):
            yield made(f"wrong at {path}", json.dumps(with_leaf(payload, path, {egg: [egg]})))
            yield made(f"text at {path}", json.dumps(with_leaf(payload, path, [egg])))
        yield made("sequence", good, ce_sequence=egg)
        yield made("time", good, ce_time=egg)
        yield made("subject", good, ce_subject=egg)
        yield made("key", f'"{egg}"', key=f"{egg} Quetzal")
        yield made("unknown", good, ce_type=f"{egg.lower()}.happened.v1")
        yield made("strange header", f'["{egg}"]', strange=egg, traceparent=f"00-{egg}-{egg}-00")
        yield made("no type", f'["{egg}"]', ce_type=f"{egg} {egg}")


# -- the search -----------------------------------------------------------------------------------------------------


def listings(town: Town) -> Iterator[tuple[str, Role, str]]:
    """Every worklist, by every state and filter, and every single document but a person's."""
    by_state: tuple[tuple[str, Role, str, type[StrEnum]], ...] = (
        ("intake", Role.COORDINATOR, "/patients", intake_model.State),
        ("referrals", Role.AUDITOR, "/referrals", referrals_model.State),
        ("prior_authorization", Role.AUDITOR, "/authorizations", authorization_model.State),
        ("notifications", Role.AUDITOR, "/deliveries", DeliveryState),
    )
    for name, role, path, states in by_state:
        yield from ((name, role, f"{path}?state={state.value}") for state in states)
    for path in ("/referrals", "/specialists"):
        yield "referrals", Role.AUDITOR, path
    yield "directory", Role.AUDITOR, "/handoffs"
    yield "webhooks", Role.AUDITOR, "/endpoints"
    single: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        (
            "referrals",
            "referral",
            ("/referrals/{}", "/referrals/{}/history", "/fhir/ServiceRequest/{}", "/fhir/Task/{}"),
        ),
        ("prior_authorization", "authorization", ("/authorizations/{}", "/fhir/ClaimResponse/{}")),
        ("scheduling", "appointment", ("/appointments/{}", "/fhir/Appointment/{}")),
        ("notifications", "delivery", ("/deliveries/{}",)),
        ("directory", "handoff", ("/handoffs/{}",)),
        ("intake", "patient", ("/patients/{}/corrections",)),
    )
    for name, collection, paths in single:
        ids = list(_store(town, name).collections[collection].texts)
        assert ids, f"nothing of {collection} came about"
        yield from ((name, Role.COORDINATOR, path.format(id)) for id in ids for path in paths)
    for id in _store(town, "intake").collections["patient"].texts:
        yield "scheduling", Role.AUDITOR, f"/appointments?patient={id}"
        yield "notifications", Role.AUDITOR, f"/deliveries?patient={id}"


def _store(town: Town, service: str) -> MemoryStore:
    store = town.chassis[service].store
    assert isinstance(store, MemoryStore)
    return store


async def look_through(town: Town, seen: Seen, injected: set[tuple[str, int, int]]) -> None:
    """Note everything that is left: listings, parked events, topics, and what stores may hold of nobody."""
    for service, role, path in listings(town):
        headers = {"Authorization": f"Bearer {town.issuer.token(role)}"}
        answer = await town.http.get(f"{url_of(service)}{path}", headers=headers)
        assert answer.status_code == 200, f"{service} {path}: {answer.text}"
        seen.add(f"listing {service}{path}", answer.text)
    for topic, partitions in town.broker.topics.items():
        for record in (record for log in partitions for record in log):
            if (topic, record.partition, record.offset) in injected:
                continue
            seen.add(f"key on {topic}", (record.key or b"").decode())
            seen.add(f"headers on {topic}", json.dumps([(n, v.decode()) for n, v in record.headers]))
            if not topic.endswith(".people"):
                seen.add(f"event on {topic}", (record.value or b"").decode())
    for service in WIRING:
        for name, collection in _store(town, service).collections.items():
            for id in collection.texts:
                document = collection.get(id)
                seen.add(f"kept answers of {service}/{name}", document.get("requests", {}))
                if service in STRANGERS and name not in {"parked"}:
                    seen.add(f"store of {service}/{name}", document)


STRANGERS = ("referrals", "scheduling", "webhooks")
"""Services that read nothing of people and keep nothing of them."""


async def what_operators_see(town: Town) -> int:
    """Print what is parked everywhere, as the command does; returns how many keys."""
    keys = 0
    for service in WIRING:
        store, clock = _store(town, service), town.clock
        assert await parked(store, clock, arguments_of(service, ["parked", "list"])) == 0
        for id in list(store.collections["parked"].texts):
            keys += 1
            assert await parked(store, clock, arguments_of(service, ["parked", "show", id])) == 0
        assert await parked(store, clock, arguments_of(service, ["parked", "show", "Zanziparked"])) == 1
    return keys


async def test_no_personal_thing_is_found_where_none_may_be() -> None:
    aviary, seen, spans = Aviary(), Seen(), InMemorySpanExporter()
    cases = [marked(case, nth, aviary) for nth, case in enumerate(load(DEFAULT_FOLDER), 1)]

    def telemetry(service: str) -> Telemetry:
        return Telemetry.configure(service, ratio=1.0, processors=[SimpleSpanProcessor(spans)])

    with written(seen):
        async with Town(telemetry) as town:
            watch(town, seen)
            await furnish(town.api(), town.clock.now(), "canary")
            told = await subscribe(town, seen)
            api = town.api()
            stories = await play_all(cases, api, TownConductor(town, api), run="canary")
            faults = [f"{line.title}: {fault}" for story in stories for line in story.lines for fault in line.faults]
            await _say_something_personal(town, stories, aviary)
            cuckoo = Cuckoo(town, aviary)
            seen.strangers_ask = True
            for door in EVERY:
                await cuckoo.visit(door)
            seen.strangers_ask = False
            injected = set()
            for message in bad_messages(aviary):
                record = town.broker.append(message)
                injected.add((record.topic, record.partition, record.offset))
            await town.settle()
            await look_through(town, seen, injected)
            keys = await what_operators_see(town)
            people = [
                record.value.decode()
                for log in town.broker.topics["intake.people"]
                for record in log
                if record.value and (record.topic, record.partition, record.offset) not in injected
            ]
    for span in spans.get_finished_spans():
        seen.add("span", span.to_json())

    assert faults == []
    assert all(line.as_expected for story in stories for line in story.lines)
    assert len(set(told)) > 100, "nobody outside was told anything"
    assert cuckoo.refused > 1000
    assert keys > 100
    assert len(spans.get_finished_spans()) > 1000
    assert any(aviary.found(text) for text in people), "the canaries do not fly at all"
    assert seen.found(aviary) == []


async def subscribe(town: Town, seen: Seen) -> list[str]:
    """Somebody outside who is told every event there is: the ids of those that came."""
    receiver = FastAPI()
    told: list[str] = []

    @receiver.post("/carerelay")
    async def hear(request: Request) -> None:
        told.append(request.headers["webhook-id"])
        seen.add("headers of a webhook", json.dumps(list(request.headers.items())))
        seen.add("webhook", (await request.body()).decode())

    body = {**ENDPOINT, "event_types": list(SUBSCRIBABLE)}
    town.lives(body["url"], receiver)
    headers = {"Authorization": f"Bearer {town.issuer.token(Role.SUBSCRIBER)}", "Idempotency-Key": "subscribing"}
    answer = await town.http.post(f"{url_of('webhooks')}/endpoints", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return told


async def _say_something_personal(town: Town, stories: list[Story], aviary: Aviary) -> None:
    """Patients write back in their own words, also from numbers that nobody knows."""
    for story in stories:
        for patient in resources(story.case.text, "Patient"):
            numbers = [p["value"] for p in patient.get("telecom", ()) if p["system"] == "phone"]
            for number in [*numbers, f"+1{aviary.mark('5005559799')}"]:
                said = {"from": number, "body": aviary.mark("my zanzisister is ill, call me"), "channel": "sms"}
                await town.api().outside("gateway", "/control/reply", said)
    await town.settle()


def test_a_canary_is_found_wherever_it_sits() -> None:
    aviary, seen = Aviary(), Seen()
    aviary.mark("Zanzifamily01")
    aviary.mark("60641")
    aviary.mark("+15005559801")
    aviary.mark("SBX-9876501")
    seen.add("a query", "?subscriber=sbx%7C9876501")
    seen.add("a log", '{"who": "zanziFAMILY01", "other": "Zanzifamily02"}')
    seen.add("an address", "/x?zip=60641&to=%2B15005559801")
    seen.add("a hash", "9f60641c-60641a, 9876501f")
    assert seen.found(aviary)[:1] == ["a query: 9876501"]
    assert seen.found(aviary)[1:] == ["a log: zanzifamily01", "an address: 5005559801", "an address: 60641"]
    with pytest.raises(AssertionError):
        aviary.mark("Smith")

"""A case is told in one trace, whatever wakes it: asserted on the spans of a service with its real engine."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import httpx
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.contracts.base import Event
from shared.kit.api import Call, Reply, Routes
from shared.kit.auth import Role
from shared.kit.decisions import Facts
from shared.kit.document import Document, derived_id
from shared.kit.reactions import Field, Reactions, on
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.telemetry import Telemetry
from shared.kit.testing.harness import Harness


class Ordered(Event):
    type: ClassVar[str] = "meal.ordered.v1"
    topic: ClassVar[str] = "inn.events"
    meal_id: str


class Cooked(Event):
    type: ClassVar[str] = "meal.cooked.v1"
    topic: ClassVar[str] = "inn.events"
    meal_id: str


class Lit(Event):
    type: ClassVar[str] = "stove.lit.v1"
    topic: ClassVar[str] = "inn.work"
    stove: str


class Meal(Document):
    """Waits for a stove."""

    collection: ClassVar[str] = "meal"
    indexes: ClassVar[tuple[str, ...]] = ("stove",)
    stove: str = "big"


class Stove(Document):
    collection: ClassVar[str] = "stove"


def order(meal: Meal | None, id: str, facts: Facts, now: datetime) -> Meal:
    made = Meal(id=id)
    made.record(Ordered(meal_id=id))
    return made


def light(stove: Stove | None, id: str, facts: Facts, now: datetime) -> Stove:
    made = stove or Stove(id=id)
    made.record(Lit(stove="big"))
    return made


def cook(meal: Meal, event: Lit, facts: Facts, now: datetime) -> Meal:
    meal.record(Cooked(meal_id=meal.id))
    return meal


def eat(meal: Meal, event: Cooked, facts: Facts, now: datetime) -> Meal:
    return meal


def inn(settings: KitSettings, http: httpx.AsyncClient) -> Service:
    routes = Routes("/inn")

    @routes.post("/meals", roles={Role.CLINICIAN}, status=201)
    async def ask(call: Call) -> Reply:
        id = call.new_id("meal")
        return await call.create(Meal, id, id, order)

    @routes.post("/stoves", roles={Role.CLINICIAN})
    async def start(call: Call) -> Reply:
        id = derived_id("stove", "big")
        return await call.put(Stove, id, id, light)

    meals = Reactions(
        Meal,
        on(Lit, Field("stove", lambda event: event.stove), cook),
        on(Cooked, lambda event: [event.meal_id], eat),
    )
    return Service("inn", (Meal, Stove), (meals,), routes=(routes,))


def named(spans: tuple[ReadableSpan, ...], name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_what_another_case_wakes_goes_on_in_its_own_trace_and_links_to_what_woke_it() -> None:
    spans = InMemorySpanExporter()
    telemetry = Telemetry.configure("inn", ratio=1.0, processors=[SimpleSpanProcessor(spans)])
    harness = Harness(KitSettings, inn, telemetry=telemetry)
    async with harness.client(Role.CLINICIAN) as client:
        assert (await client.post("/inn/meals", headers=harness.key())).status_code == 201
        await harness.settle()
        assert (await client.post("/inn/stoves", headers=harness.key())).status_code == 200
        await harness.settle()
    told = spans.get_finished_spans()
    meal, stove = named(told, "POST /inn/meals").context, named(told, "POST /inn/stoves").context
    woken, eaten = named(told, "process stove.lit.v1"), named(told, "process meal.cooked.v1")
    assert meal is not None
    assert stove is not None
    assert woken.context is not None
    assert eaten.context is not None
    assert woken.context.trace_id == meal.trace_id != stove.trace_id
    assert [link.context.trace_id for link in woken.links] == [stove.trace_id]
    assert eaten.context.trace_id == meal.trace_id
    assert eaten.parent is not None
    assert eaten.parent.span_id == woken.context.span_id

"""Traces go on across events and documents, cost nothing where nobody sampled them, and logs show no one's data."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.kit.auth import Role
from shared.kit.settings import KitSettings
from shared.kit.telemetry import Telemetry, case_attributes, configure_logs, log, well_formed, where_raised
from shared.kit.testing.harness import Harness
from tests.unit.kit.bench import Bench, record_of
from tests.unit.kit.test_engine import BOXES, letter
from tests.unit.kit.toy import POISON, Box, build

CANARY = "Synthea-Canary"
SAMPLED = f"00-{0xA:032x}-{0xB:016x}-01"
UNSAMPLED = f"00-{0xA:032x}-{0xB:016x}-00"
UNSAMPLED_OF_RANDOM_IDS = f"00-{0xA:032x}-{0xB:016x}-02"
LETTER = "00000000-0000-4000-8000-000000000001"


class Recorded:
    """Telemetry whose spans a test can look at."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.telemetry = Telemetry.configure("toy", ratio=ratio, processors=[SimpleSpanProcessor(self.exporter)])

    @property
    def spans(self) -> dict[str, tuple[str, str | None, list[str]]]:
        """By name: the span's trace, its parent, and the spans it links to."""
        return {
            span.name: (
                f"{span.context.trace_id:032x}",
                f"{span.parent.span_id:016x}" if span.parent else None,
                [f"{link.context.span_id:016x}" for link in span.links],
            )
            for span in self.exporter.get_finished_spans()
            if span.context is not None
        }


# -- contexts -------------------------------------------------------------------------------------------------


def test_a_piece_of_work_is_a_child_of_what_caused_it() -> None:
    recorded = Recorded()

    traced = recorded.telemetry.start("work", SAMPLED)
    traced.end()

    assert recorded.spans["work"][:2] == (f"{0xA:032x}", f"{0xB:016x}")
    assert traced.context is not None
    assert well_formed(traced.context) == traced.context
    assert traced.context.startswith(f"00-{0xA:032x}-")
    assert traced.context != SAMPLED


def test_work_without_a_cause_begins_a_trace_of_its_own() -> None:
    recorded = Recorded()

    one, two = recorded.telemetry.start("one", None), recorded.telemetry.start("two", None)
    one.end()
    two.end()

    assert one.context is not None
    assert two.context is not None
    assert one.context.split("-")[1] != two.context.split("-")[1]
    assert recorded.spans["one"][1] is None


@pytest.mark.parametrize("context", [UNSAMPLED, UNSAMPLED_OF_RANDOM_IDS])
def test_what_nobody_sampled_is_handed_on_as_it_came(context: str) -> None:
    recorded = Recorded()

    traced = recorded.telemetry.start("work", context)
    traced.end(RuntimeError())

    assert traced.context == context
    assert traced.span is None
    assert recorded.spans == {}


def test_a_root_that_is_not_sampled_tells_everybody_after_it() -> None:
    recorded = Recorded(ratio=0.0)

    root = recorded.telemetry.start("root", None)
    child = recorded.telemetry.start("child", root.context)

    assert root.context is not None
    assert int(root.context[-2:], 16) & 1 == 0
    assert child.context == root.context
    assert child.span is None
    assert recorded.spans == {}


def test_quiet_telemetry_hands_contexts_on() -> None:
    assert Telemetry.quiet().start("work", SAMPLED).context == SAMPLED
    assert Telemetry.quiet().start("work", None).context is None


def test_links_name_what_triggered_the_work_beside_its_cause() -> None:
    recorded = Recorded()

    recorded.telemetry.start("work", SAMPLED, links=[f"00-{0xC:032x}-{0xD:016x}-01", None, "made-up"]).end()

    assert recorded.spans["work"][2] == [f"{0xD:016x}"]


@pytest.mark.parametrize("parent", ["made-up", "00-x-y-01", f"00-{0:032x}-{1:016x}-01", "----"])
def test_a_cause_that_cannot_be_read_is_none(parent: str) -> None:
    recorded = Recorded()

    recorded.telemetry.start("work", parent).end()

    assert recorded.spans["work"][1] is None


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (SAMPLED, True),
        (UNSAMPLED, True),
        (None, False),
        ("", False),
        (f"{CANARY}-00", False),
        (SAMPLED.upper(), False),
        (SAMPLED + "\n", False),
        (SAMPLED + "-00", False),
        (f"00-{0:032x}-{1:016x}-01", False),
        (f"00-{1:032x}-{0:016x}-01", False),
        (f"00-{'1_' * 16}-{1:016x}-01", False),
    ],
)
def test_a_trace_context_from_outside_is_taken_only_in_its_exact_form(text: str | None, good: bool) -> None:
    assert well_formed(text) == (text if good else None)


def test_an_error_is_named_by_its_type_alone() -> None:
    recorded = Recorded()

    with pytest.raises(ValueError, match=CANARY), recorded.telemetry.start("work", None):
        raise ValueError(CANARY)

    (span,) = recorded.exporter.get_finished_spans()
    assert dict(span.attributes or {})["error.type"] == "ValueError"
    assert not span.status.is_ok
    assert CANARY not in span.to_json()


def test_spans_carry_the_opaque_case_ids_of_a_message() -> None:
    class Message:
        referral_id = "r-1"
        patient_id = "p-1"
        name = CANARY
        authorization_id = None

    assert case_attributes(Message()) == {"carerelay.patient_id": "p-1", "carerelay.referral_id": "r-1"}


def test_spans_go_to_a_file_as_whole_lines(tmp_path: Path) -> None:
    telemetry = Telemetry.configure("toy", ratio=1.0, traces_file=tmp_path / "deep" / "traces.jsonl")

    with telemetry.start("outer", SAMPLED, lambda: {"a": 1}) as outer:
        telemetry.start("inner", outer.context, links=[SAMPLED]).end(RuntimeError(CANARY))
    telemetry.close()

    text = (tmp_path / "deep" / "traces.jsonl").read_text()
    inner, outer_line = map(json.loads, text.splitlines())
    assert CANARY not in text
    assert (outer_line["name"], outer_line["service"], outer_line["attributes"]) == ("outer", "toy", {"a": 1})
    assert (outer_line["trace_id"], outer_line["parent_id"]) == (f"{0xA:032x}", f"{0xB:016x}")
    assert inner["parent_id"] == outer_line["span_id"]
    assert (inner["error"], outer_line["error"]) == (True, False)
    assert inner["links"] == [f"{0xA:032x}-{0xB:016x}"]
    assert inner["start"] <= inner["end"]


# -- one case, one trace --------------------------------------------------------------------------------------


async def test_a_case_is_one_trace_through_request_event_reaction_timer_and_call() -> None:
    recorded = Recorded()
    kit = await Harness(KitSettings, build, telemetry=recorded.telemetry).start()
    async with kit.client(Role.COORDINATOR) as clerk:
        opened = await clerk.post(
            "/boxes", json={"owner": "ann"}, headers={"Idempotency-Key": "1", "traceparent": SAMPLED}
        )
        await kit.settle()
        other = f"00-{0xE:032x}-{0xF:016x}-01"
        box = opened.json()["id"]
        put = await clerk.post(
            f"/boxes/{box}/letters", json={"letter": LETTER}, headers={"Idempotency-Key": "2", "traceparent": other}
        )
        assert put.status_code == 200
    await kit.settle()

    traces = {name: trace for name, (trace, _, _) in recorded.spans.items()}
    case = f"{0xA:032x}"
    for name in ("POST /boxes", "decide PutLetter", "due send", "call send", "process letter.counted.v1"):
        assert traces[name] == case, name
    assert traces["POST /boxes/{box_id}/letters"] == f"{0xE:032x}"
    request = next(s for s in recorded.exporter.get_finished_spans() if s.name == "POST /boxes/{box_id}/letters")
    assert request.context is not None
    assert recorded.spans["decide PutLetter"][2] == [f"{request.context.span_id:016x}"], "it links to the request"


async def test_an_unsampled_event_leaves_no_span_and_goes_on_unsampled() -> None:
    recorded = Recorded()
    bench = Bench(recorded.telemetry)

    await bench.reactor(BOXES).handle([record_of(letter("1"), "ann", 1, trace=UNSAMPLED)])

    assert recorded.spans == {}
    assert bench.offered[0].entries[0].trace == UNSAMPLED


async def test_an_event_taken_in_is_one_span_that_names_its_group_and_document() -> None:
    recorded = Recorded()
    bench = Bench(recorded.telemetry)

    await bench.reactor(BOXES).handle([record_of(letter("1"), "ann", 1, trace=SAMPLED)])

    (span,) = recorded.exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert attributes["carerelay.document.id"] == "box"
    assert attributes["messaging.consumer.group.name"] == "toy.box"


# -- logs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def json_logs(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """What a test writes after ``configure_logs``, which is put back afterwards."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield capsys
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_where_an_error_was_raised_is_told_without_what_it_says() -> None:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        told = where_raised(error)

    assert told.startswith("KeyError at test_telemetry.py:")
    assert CANARY not in told
    assert where_raised(ValueError(CANARY)) == "ValueError"


def test_an_exception_is_logged_by_type_and_places_alone(json_logs: pytest.CaptureFixture[str]) -> None:
    configure_logs("toy")
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        log.error("it.failed", exc_info=error)
        log.error("it.failed", exc_info=True)
        logging.getLogger("library").exception("about %s", CANARY)
        logging.getLogger("library").error("plain", exc_info=(ValueError, error, error.__traceback__))

    text = json_logs.readouterr().out
    lines = [json.loads(line) for line in text.splitlines()]
    assert CANARY not in text
    assert [line.get("error", "").split(" ")[0] for line in lines] == ["ValueError"] * 4
    assert all(line["service"] == "toy" for line in lines[:2])
    assert any("test_telemetry.py" in place for place in lines[0]["raised"])


def test_libraries_are_heard_from_warning_on(json_logs: pytest.CaptureFixture[str]) -> None:
    configure_logs("toy")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("something")

    (line,) = map(json.loads, json_logs.readouterr().out.splitlines())
    assert (line["event"], line["level"], line["logger"]) == ("something", "warning", "library")


async def test_what_is_poison_or_fails_shows_nobodys_data_in_logs_or_spans(
    json_logs: pytest.CaptureFixture[str],
) -> None:
    configure_logs("toy")
    recorded = Recorded()
    bench = Bench(recorded.telemetry)
    reactor = bench.reactor(BOXES)

    await reactor.handle(
        [
            record_of(letter(CANARY, text=POISON), "ann", 1, trace=SAMPLED),
            record_of(letter("1", text=CANARY), "bob", 1, trace=SAMPLED, value=CANARY.encode()),
            record_of(letter("1", text=CANARY), "eve", 1, trace=SAMPLED, key=CANARY.encode()),
            record_of(letter("2", text=CANARY), "guy", 1, trace=SAMPLED),
        ]
    )

    assert (await bench.get(Box, "box")).letters == ["2"]
    logs = json_logs.readouterr().out
    assert logs.count("key.parked") == 3
    assert CANARY not in logs
    assert CANARY not in "".join(span.to_json() for span in recorded.exporter.get_finished_spans())

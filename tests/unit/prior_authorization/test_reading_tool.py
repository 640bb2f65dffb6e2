"""``python -m services.prior_authorization read``: the right words for every file, refusals with their reasons.

The words of the guide's files were worked out by reading those files, not by running the command.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.prior_authorization import reading_tool
from services.prior_authorization.pas import codes
from tests.unit.prior_authorization.test_reading import concept, response, review

Json = dict[str, Any]

FOLDERS = ("examples", "testkit")


def item(sequence: int | None, decision: str, code: str | None, **more: object) -> Json:
    """An item as it is printed; what is not named was not said."""
    said: Json = {"number": None, "from": None, "to": None, "units": None, "reasons": [], "granted": None}
    return {"sequence": sequence, "decision": decision, "code": code, **said, **more}


MAY = {"number": "AUTH0001", "from": "2005-05-02", "to": "2005-06-02", "units": 1}
CONSULTATION = {"code": "3", "system": "https://codesystem.x12.org/005010/1365", "units": 1}
APPROVED = ("complete", [item(1, "approved", "A1", **MAY)])
PENDED = ("complete", [item(1, "pended", "A4")])

WORDS = {
    "Bundle-PASSubscriptionNotification.json": APPROVED,
    "Bundle-ReferralAuthorizationResponseBundleExample.json": APPROVED,
    "Bundle-ReferralPendingAuthorizationResponseBundleExample.json": PENDED,
    "ClaimResponse-PractitionerRequestorResponseExample.json": APPROVED,
    "ClaimResponse-PractitionerRequestorPendingResponseExample.json": PENDED,
    "ClaimResponse-PractitionerRequestorAdditionalContentResponseExample.json": (
        "complete",
        [
            item(1, "approved", "A1", **MAY),
            item(2, "approved", "A1", number="AUTH0001", units=1, granted=CONSULTATION),
        ],
    ),
    "valid_pa_response_bundle.json": APPROVED,
    "PAS_notification_example_full_resource.json": (
        "queued",
        [item(1, "undecided", "PENDEDCODE", **{"from": "2024-01-30", "to": "2024-02-29"})],
    ),
}
"""Every file of the guide and its test kit that holds an answer: outcome and items. No other is one."""


def shown(capsys: pytest.CaptureFixture[str], *files: Path) -> tuple[int, list[Json], str]:
    """What the command answers: status, lines, complaints."""
    status = reading_tool.read([str(file) for file in files])
    printed = capsys.readouterr()
    return status, [json.loads(line) for line in printed.out.splitlines()], printed.err


def written(folder: Path, content: object, name: str = "answer.json") -> Path:
    """A file with this content: bytes as they are, all else as JSON."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_the_guide_is_read_to_its_words_or_refused(
    cases: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((cases / "pas" / folder).glob("*.json"))
    if not files:
        pytest.skip(f"pas/{folder} is not among the records from elsewhere")
    for file in files:
        status, lines, complaints = shown(capsys, file)
        words = WORDS.get(file.name)
        if words is None:
            assert (status, lines) == (1, []), file.name
            assert complaints.startswith(f"{file}: "), file.name
        else:
            assert lines == [{"file": str(file), "outcome": words[0], "items": words[1], "errors": []}], file.name
            assert (status, complaints) == (0, ""), file.name


def test_the_nonconformant_bundle_is_refused_with_all_its_reasons(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = cases / "pas" / "testkit" / "nonconformant_pas_bundle.json"
    if not file.is_file():
        pytest.skip(f"{file.name} is not among the records from elsewhere")
    _, _, complaints = shown(capsys, file)
    assert "Bundle.entry must hold the answer" in complaints
    assert "Bundle.meta.profile names a PAS request" in complaints


def test_a_refused_file_does_not_keep_the_others_from_being_read(tmp_path: Path) -> None:
    """As a process, for the exit status is what scripts go by."""
    good = written(tmp_path, response(), "good.json")
    bad = written(tmp_path, {"resourceType": "Patient"}, "bad.json")
    command = [sys.executable, "-m", "services.prior_authorization", "read"]
    done = subprocess.run([*command, bad, good, tmp_path / "absent.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [str(good)]
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [str(bad), str(tmp_path / "absent.json")]
    assert subprocess.run([*command, good], capture_output=True, check=False).returncode == 0


def test_a_reader_that_has_heard_enough_is_no_failure_to_tell_of(tmp_path: Path) -> None:
    good = written(tmp_path, response(), "good.json")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "services.prior_authorization", "read", good]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


# -- decisions ------------------------------------------------------------------------------------------------------


def answered(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object) -> Json:
    """The one line of a file that is read."""
    status, lines, complaints = shown(capsys, written(tmp_path, content))
    assert (status, len(lines), complaints) == (0, 1, "")
    return lines[0]


def one(code: str, *reasons: str) -> Json:
    return response(item=[{"itemSequence": 1, "adjudication": [review(code, None, *reasons)]}])


@pytest.mark.parametrize(
    ("code", "decision"),
    [
        ("A1", "approved"),
        ("A2", "partly-approved"),
        ("A3", "denied"),
        ("A4", "pended"),
        ("A6", "modified"),
        ("C", "cancelled"),
        ("CT", "contact-payer"),
        ("NA", "not-required"),
        ("A5", "undecided"),
        ("a1", "undecided"),
        ("APPROVED IN TOTAL", "undecided"),
    ],
)
def test_a_decision_is_its_review_action_and_no_other_code_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, decision: str
) -> None:
    (said,) = answered(tmp_path, capsys, one(code))["items"]
    assert (said["decision"], said["code"]) == (decision, code)


def test_an_item_without_a_review_action_is_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = {"itemSequence": 1, "adjudication": [{"category": concept(codes.THO + "adjudication", "submitted")}]}
    assert answered(tmp_path, capsys, response(item=[bare]))["items"] == [item(1, "undecided", None)]


def test_a_code_of_another_system_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.loads(json.dumps(one("A1")).replace(codes.X12_REVIEW_ACTION, "http://payer.example/decisions"))
    assert answered(tmp_path, capsys, raw)["items"] == [item(1, "undecided", "A1")]
    raw["entry"][0]["resource"]["item"][0]["adjudication"].append(review("A3"))
    assert answered(tmp_path, capsys, raw)["items"][0]["decision"] == "undecided"


def test_two_decisions_on_one_item_that_differ_decide_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"itemSequence": 1, "adjudication": [review("A1", "N-1"), review("A3")]}
    assert answered(tmp_path, capsys, response(item=[both]))["items"][0]["decision"] == "undecided"
    same = {"itemSequence": 1, "adjudication": [review("A1", "N-1"), review("A1")]}
    assert answered(tmp_path, capsys, response(item=[same]))["items"][0]["decision"] == "approved"


def test_each_item_has_its_own_words_and_the_claims_hold_where_it_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {"category": concept("s", "submitted")}
    period = {"url": codes.ITEM_PERIOD, "valuePeriod": {"start": "2026-04", "end": "2026-06"}}
    quantity = {"url": "quantity", "valueQuantity": {"value": 2.5}}
    items = [
        {"itemSequence": 3, "adjudication": [review("A3", None, "82", "0M", "82")]},
        {"itemSequence": 1, "adjudication": [bare]},
        {
            "itemSequence": 2,
            "extension": [period, {"url": codes.ITEM_DETAIL, "extension": [quantity]}],
            "adjudication": [bare, review("A2", "N-2")],
        },
    ]
    header = {"preAuthRef": "N-0", "preAuthPeriod": {"start": "2026-03-02", "end": "2026-05-31"}}
    raw = response(item=items, adjudication=[review("A1")], **header)
    assert answered(tmp_path, capsys, raw)["items"] == [
        item(3, "denied", "A3", reasons=["82", "0M"]),
        item(1, "approved", "A1", number="N-0", **{"from": "2026-03-02", "to": "2026-05-31"}),
        item(2, "partly-approved", "A2", number="N-2", units=2.5, **{"from": "2026-04-01", "to": "2026-06-30"}),
    ]


def test_a_decision_on_the_claim_alone_stands_for_no_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = response(item=None, adjudication=[review("A3", None, "0M")])
    assert answered(tmp_path, capsys, raw)["items"] == [item(None, "denied", "A3", reasons=["0M"])]


def test_a_review_action_on_the_item_itself_is_read_as_before_pas_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {"category": concept("s", "submitted")}
    old = {"itemSequence": 1, "extension": review("A1", "N-1")["extension"], "adjudication": [bare]}
    assert answered(tmp_path, capsys, response(item=[old]))["items"] == [item(1, "approved", "A1", number="N-1")]


def test_a_modified_item_shows_what_is_granted_in_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    granted = {
        "itemSequence": [1],
        "productOrService": concept("http://www.ama-assn.org/go/cpt", "99243"),
        "quantity": {"value": 2},
        "extension": [{"url": codes.ITEM_PERIOD, "valuePeriod": {"start": "2026-04-01", "end": "2026-04-30"}}],
        "adjudication": [review("A1", "N-6")],
    }
    raw = response(item=[{"itemSequence": 1, "adjudication": [review("A6")]}], addItem=[granted])
    service = {"code": "99243", "system": "http://www.ama-assn.org/go/cpt", "units": 2}
    april = {"number": "N-6", "from": "2026-04-01", "to": "2026-04-30"}
    assert answered(tmp_path, capsys, raw)["items"] == [item(1, "modified", "A6", units=2, granted=service, **april)]
    second = copy.deepcopy(granted)
    second["productOrService"] = concept("http://www.ama-assn.org/go/cpt", "97110")
    raw["entry"][0]["resource"]["addItem"].append(second)
    (said,) = answered(tmp_path, capsys, raw)["items"]
    assert [each["code"] for each in said["granted"]] == ["99243", "97110"]


def test_errors_alone_are_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = {"url": codes.ERROR_ELEMENT, "extension": [{"url": "error", "valueString": "2010A-NM103"}]}
    path = {"url": codes.ERROR_PATH, "valueString": "Bundle.entry[1].resource.name"}
    follow_up = {"url": codes.ERROR_FOLLOW_UP, "valueCodeableConcept": concept(codes.X12_FOLLOW_UP, "C")}
    errors = [
        {"code": concept(codes.X12_REJECT, "04")},
        {"code": concept(codes.X12_REJECT, "T4"), "extension": [place, path, follow_up]},
        {"code": concept(codes.X12_REJECT, "15"), "itemSequence": 2, "extension": [place]},
        {"code": {"text": "no"}, "extension": [{"url": codes.ERROR_ELEMENT, "valueString": "2000E-HI01"}]},
    ]
    line = answered(tmp_path, capsys, response(item=None, outcome="error", error=errors))
    assert (line["outcome"], line["items"]) == ("error", [])
    assert line["errors"] == [
        {"item": None, "code": "04", "path": None, "follow_up": None},
        {"item": None, "code": "T4", "path": "Bundle.entry[1].resource.name", "follow_up": "C"},
        {"item": 2, "code": "15", "path": "2010A-NM103", "follow_up": None},
        {"item": None, "code": None, "path": "2000E-HI01", "follow_up": None},
    ]


def test_several_answers_in_one_file_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = response(), response(outcome="error", item=None, error=[{"code": concept("s", "75")}])
    both = {"parameter": [{"name": "return", "resource": first}, {"name": "return", "resource": second}]}
    line = answered(tmp_path, capsys, {"resourceType": "Parameters", **both})
    assert (line["outcome"], [each["code"] for each in line["items"]]) == ("error", ["A1"])
    assert [each["code"] for each in line["errors"]] == ["75"]
    first["entry"] += response(outcome="partial", item=[{"itemSequence": 1, "adjudication": [review("A4")]}])["entry"]
    line = answered(tmp_path, capsys, first)
    assert (line["outcome"], [each["code"] for each in line["items"]]) == ("partial", ["A1", "A4"])


def status_of(kind: str) -> Json:
    """The first entry of a notification."""
    named = [{"name": "subscription", "valueReference": {"reference": "Subscription/s"}}]
    return {"resourceType": "Parameters", "parameter": [*named, {"name": "type", "valueCode": kind}]}


def notification(kind: str, *resources: Json) -> Json:
    entries = [{"resource": resource} for resource in (status_of(kind), *resources)]
    return {"resourceType": "Bundle", "type": "history", "entry": entries}


def test_what_holds_no_answer_by_its_nature_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"resourceType": "Bundle", "type": "collection", "meta": {"profile": [codes.INQUIRY_RESPONSE_BUNDLE]}}
    for raw in (notification("handshake"), notification("heartbeat"), {"resourceType": "Parameters"}, asked):
        line = answered(tmp_path, capsys, raw)
        assert (line["outcome"], line["items"], line["errors"]) == (None, [], [])


# -- refusals -------------------------------------------------------------------------------------------------------

CLAIM = {"resourceType": "Claim"}


def swapped() -> Json:
    raw = response()
    raw["entry"].insert(0, {"resource": {"resourceType": "Organization"}})
    return raw


def carried() -> Json:
    raw = response()
    raw["entry"].insert(0, {"resource": CLAIM})
    return raw


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8 at byte 0"),
        (b"{", "is not one JSON document: line 1, column 2"),
        (b'{"a": 1}\n{"a": 2}\n', "is not one JSON document: line 2, column 1"),
        (b'{"resourceType": "Bundle", "resourceType": "ClaimResponse"}', "one property twice"),
        (b'{"value": NaN}', "a number that JSON does not have"),
        (b"[" * 100_000, "is nested too deep"),
        (b"[]", "Resource must be a FHIR resource"),
        (b"null", "Resource must be a FHIR resource"),
        ({}, "Resource.resourceType must be"),
        ({"resourceType": "Jane Doe"}, "Resource.resourceType must be"),
        (CLAIM, "Claim is a request"),
        ({"resourceType": "Patient"}, "Patient is no PAS response"),
        (
            {"resourceType": "OperationOutcome", "issue": [{"code": "invalid"}]},
            "OperationOutcome.issue[0] says invalid",
        ),
        ({"resourceType": "Bundle"}, "Bundle.type must be collection"),
        ({"resourceType": "Bundle", "type": "collection", "entry": []}, "Bundle.entry must hold the answer"),
        ({"resourceType": "Bundle", "type": "collection", "entry": {}}, "Bundle.entry must be a list"),
        ({**response(), "type": "searchset"}, "Bundle.type must be collection"),
        (swapped(), "Bundle.entry[0].resource must be the ClaimResponse"),
        (carried(), "Bundle.entry[0].resource is a Claim"),
        (status_of("event-notification"), "Parameters is a subscription's status alone"),
        (notification("event-notification"), "Bundle.entry must hold the ClaimResponse"),
        (notification("advertisement"), "must be a type of subscription notification"),
        (response(created=None), "Bundle.entry[0].resource.created is required"),
        (response(status="entered-in-error"), "Bundle.entry[0].resource.status must be active"),
        (response(use="predetermination"), "Bundle.entry[0].resource.use must be preauthorization"),
        (response(outcome="approved"), "Bundle.entry[0].resource.outcome is not a code"),
    ],
)
def test_what_is_no_answer_is_refused_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, reason: str
) -> None:
    file = written(tmp_path, content)
    status, lines, complaints = shown(capsys, file)
    assert (status, lines) == (1, [])
    assert reason in complaints
    assert all(line.startswith(f"{file}: ") for line in complaints.splitlines())
    assert "Jane" not in complaints


def test_a_byte_order_mark_is_no_reason_to_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(tmp_path, capsys, b"\xef\xbb\xbf" + json.dumps(one("A3")).encode())["items"][0]["code"] == "A3"


def test_what_cannot_be_opened_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, complaints = shown(capsys, tmp_path, tmp_path / "absent.json")
    assert (status, lines) == (1, [])
    assert "is a directory" in complaints
    assert "no such file" in complaints
    assert reading_tool.read(["a\0b"]) == 1


def test_an_oversized_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, response())
    os.truncate(file, reading_tool.MAX_BYTES + 1)
    status, _, complaints = shown(capsys, file)
    assert (status, "is larger than" in complaints) == (1, True)

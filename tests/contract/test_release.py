"""The gate for what subscribers were given: nothing that the last release holds may change under them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from shared.contracts import __version__, release
from shared.contracts.snapshot import text_of

SINCE, RELEASED = release.last()
SENT = "referral.sent.v1"


def test_those_who_run_on_the_last_release_go_on() -> None:
    found = release.broken(RELEASED, release.current(), since=SINCE)
    assert found == [], release.ADVICE


def test_the_language_is_not_older_than_its_last_release() -> None:
    assert release.numbers(__version__) >= release.numbers(SINCE)


def test_private_events_are_not_released() -> None:
    assert {schema["x-topic"].partition(".")[2] for schema in RELEASED.values()} == {"events", "people"}


def changed(**properties: Any) -> dict[str, Any]:
    """The events of the release, with other properties of one of them; None takes one away."""
    now = copy.deepcopy(RELEASED)
    for name, schema in properties.items():
        if schema is None:
            del now[SENT]["properties"][name]
        else:
            now[SENT]["properties"][name] = schema
    return now


def test_an_added_optional_field_and_a_new_event_break_nobody() -> None:
    now = changed(added={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None})
    now["referral.sent.v2"] = now[SENT]
    assert release.broken(RELEASED, now, since=SINCE) == []


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (changed(specialist_id=None), "specialist_id was removed"),
        (changed(specialist_id={"type": "integer"}), "specialist_id: type"),
        ({type: schema for type, schema in RELEASED.items() if type != SENT}, "it was withdrawn"),
    ],
    ids=["removed", "retyped", "withdrawn"],
)
def test_what_would_break_a_subscriber_is_refused_although_its_snapshot_was_replaced(
    now: dict[str, Any], reason: str
) -> None:
    found = release.broken(RELEASED, now, since=SINCE)
    assert any(line.startswith(f"{SENT}: {reason}") for line in found), found


def test_an_event_may_be_withdrawn_by_a_new_major_version_alone() -> None:
    now = {type: schema for type, schema in RELEASED.items() if type != SENT}
    assert release.broken(RELEASED, now, since="1.4.0", version="2.0.0") == []
    assert release.broken(RELEASED, now, since="1.4.0", version="1.5.0") == [f"{SENT}: it was withdrawn"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(release, "RELEASED", tmp_path)
    return tmp_path


def test_a_release_is_cut_once_and_then_held_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(["cut"]) == 0
    assert release.last() == (__version__, release.current())
    assert release.main([]) == 0
    assert release.main(["cut"]) == 1
    assert "raise __version__" in capsys.readouterr().err


def test_the_last_release_is_the_highest_version(folder: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        (folder / f"{version}.json").write_text("{}")
    assert release.last()[0] == "0.10.0"


def test_the_command_says_what_to_do_instead(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = "referral.lost.v1"
    (folder / "0.0.1.json").write_text(text_of({lost: {"properties": {}}}))
    assert release.main(["cut"]) == 1
    told = capsys.readouterr().err
    assert f"{lost}: it was withdrawn" in told
    assert "publish the new one beside" in told
    assert [path.name for path in folder.iterdir()] == ["0.0.1.json"]

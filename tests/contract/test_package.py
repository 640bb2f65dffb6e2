"""The published language installs by itself, and says there what it says here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from shared.contracts import __version__
from shared.contracts.snapshot import EXAMPLES, committed, events
from tests.checks.contracts_alone import PACKAGE, install

ASKED = """
import importlib.metadata, json
import carerelay_contracts
from carerelay_contracts import release, snapshot
from carerelay_contracts.referrals import ReferralSent

found = {type: event.__module__ for type, event in snapshot.events().items()}
example = json.loads((snapshot.EXAMPLES / f"{ReferralSent.type}.json").read_text())["full"]
try:
    import shared
except ImportError:
    shared = None
print(json.dumps({
    "version": importlib.metadata.version("carerelay-contracts"),
    "needs": importlib.metadata.requires("carerelay-contracts"),
    "events": found,
    "same": snapshot.committed() == {type: snapshot.schema_of(event) for type, event in snapshot.events().items()},
    "sent": ReferralSent.model_validate({**example, "added_later": 1}).model_dump(mode="json"),
    "released": release.last()[0],
    "typed": (snapshot.FOLDER / "py.typed").is_file(),
    "shared": shared is not None,
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the package, and without this repository."""
    return install(tmp_path_factory.mktemp("alone"))


def test_another_team_finds_every_event_schema_and_example_in_the_package(python: Path, tmp_path: Path) -> None:
    done = subprocess.run([python, "-c", ASKED], cwd=tmp_path, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["version"] == __version__
    assert len(told["needs"]) == 1
    assert told["needs"][0].startswith("pydantic")
    assert set(told["events"]) == set(events()) == set(committed())
    assert all(module.startswith("carerelay_contracts.") for module in told["events"].values())
    assert told["same"]
    assert told["sent"] == json.loads((EXAMPLES / "referral.sent.v1.json").read_text(encoding="utf-8"))["full"]
    assert told["released"]
    assert told["typed"]
    assert not told["shared"], "this repository was importable, so nothing was shown"


def test_building_leaves_nothing_in_the_checkout(python: Path) -> None:
    left = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert left <= {"examples", "released", "schemas", "__pycache__"}

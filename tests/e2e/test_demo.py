"""The demo as a stranger runs it, and with records from elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.demo.api import Api, Json
from deploy.demo.cases import Case, load, resources
from deploy.demo.player import ORDER_INTENTS, TERMINAL, Story, play_all
from deploy.embedded import Stack
from tests.conftest import ROOT
from tests.e2e.evidence import furnish_anew, outside

pytestmark = pytest.mark.embedded

SECONDS = 180
"""Twice what is promised of two quiet cores: where tests run, others run too."""

MARKER = "CARERELAY_TEST_RUN"

UNUSABLE = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [
        {
            "resource": {"resourceType": "Patient", "id": "one", "birthDate": "the fifth of May", "gender": "female"},
            "request": {"method": "PUT", "url": "Patient/one"},
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished demo."""

    status: int
    lines: list[str]
    seconds: float
    left_behind: list[int]


async def demo(*arguments: str) -> Ran:
    """Run ``python -m deploy.demo`` to its end."""
    run = uuid4().hex
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.demo", *arguments),
        cwd=ROOT,
        env={**os.environ, MARKER: run},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()  # as Ctrl-C: it stops its stack
            await process.wait()
    took = time.monotonic() - began
    return Ran(process.returncode or 0, printed.decode().splitlines(), took, begun_by(run))


def begun_by(run: str) -> list[int]:
    """The processes that inherited this run's marker, where the system shows environments (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or is not ours
        if f"{MARKER}={run}".encode() in environment:
            found.append(int(process.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc shows who began a process")
async def test_processes_of_a_run_are_found_by_its_marker() -> None:
    run = uuid4().hex
    process = await asyncio.create_subprocess_exec("cat", env={MARKER: run}, stdin=asyncio.subprocess.PIPE)
    assert begun_by(run) == [process.pid]
    await process.communicate(b"")
    assert begun_by(run) == []


async def test_the_demo_ends_as_expected_in_time_and_leaves_nothing_behind(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    ran = await demo("--data", str(tmp_path / "demo"))
    record_property("seconds", round(ran.seconds, 1))
    told = "\n".join(ran.lines[-40:])
    assert ran.status == 0, told
    good, _, total = ran.lines[-1].partition(" referrals ended as expected")[0].partition(" of ")
    assert good == total, told
    assert int(total) >= 12
    assert ran.left_behind == []
    assert ran.seconds < SECONDS


async def test_records_from_elsewhere_register_and_each_order_becomes_a_referral_that_ends_or_waits(
    stack: Stack, cases: Path, tmp_path: Path
) -> None:
    bundles = load(cases / "cms50" / "patients")
    (tmp_path / "0-unusable.json").write_text(json.dumps(UNUSABLE))
    (unusable,) = load(tmp_path)
    async with outside(stack) as (api, conductor):
        await furnish_anew(stack, api, conductor, "elsewhere")
        refused, *stories = await play_all([unusable, *bundles], api, conductor)
        assert len(stories) == len(bundles) > 0
        for case, story in zip(bundles, stories, strict=True):
            await _everything_ordered_is_on_its_way(api, case, story, conductor.now())
    assert refused.registration == "refused"
    assert refused.lines == []
    assert any("birthDate" in flaw.path and flaw.reason for flaw in refused.flaws), refused.flaws
    assert not any("fifth" in flaw.reason for flaw in refused.flaws), "what somebody wrote is not repeated"


async def _everything_ordered_is_on_its_way(api: Api, case: Case, story: Story, now: datetime) -> None:
    assert not story.flaws, f"{case.name} was refused: {story.flaws}"
    patient = await api.get("intake", f"/patients/{story.patient_id}", "coordinator")
    assert patient["state"] in {"incomplete", "complete"}, f"{case.name}: missing contact is no reason to refuse"
    orders = [one for one in resources(case.text, "ServiceRequest") if one.get("intent") in ORDER_INTENTS]
    assert len(story.lines) == len(orders)
    for line in story.lines:
        referral = await api.get("referrals", f"/referrals/{line.referral_id}", "coordinator")
        assert _ended_or_waits(referral, now), f"{case.name}: {referral['state']}: {referral.get('wait')}"


def _ended_or_waits(referral: Json, now: datetime) -> bool:
    if referral["state"] in TERMINAL:
        return True
    wait = referral["wait"]
    named = referral["state"].startswith("awaiting-") and bool(wait["reason"]) and bool(wait["owner"])
    return named and (datetime.fromisoformat(wait["deadline"]) > now or wait.get("escalated_at") is not None)

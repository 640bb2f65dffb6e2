"""The frame of ``make bench``: ratios run by run, targets, and a page that shows what was measured and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import report, show
from tests.bench.frame import SCENARIOS, TARGETS, Measure, Outcome

OURS, FLOOR = Measure("ours", "events/s", [90, 200, 80]), Measure("floor", "events/s", [100, 400, 100])


def outcome(ratio: float) -> Outcome:
    return Outcome("reaction", [OURS, FLOOR], {"reaction_vs_floor": ratio}, ["what bounds it"])


def test_a_ratio_is_taken_run_by_run() -> None:
    ratio = OURS.over(FLOOR, "ours / floor")
    assert list(ratio.runs) == [0.9, 0.5, 0.8]
    assert (ratio.low, ratio.median, ratio.high) == (0.5, 0.8, 0.9)


def test_an_outcome_fills_only_keys_that_the_summary_has() -> None:
    with pytest.raises(ValueError, match="reaction_vs_flor"):
        Outcome("reaction", [OURS], {"reaction_vs_flor": 1.0})


@pytest.mark.parametrize(("key", "met", "missed"), [("reaction_vs_floor", 0.6, 0.59), ("lateness_p99_s", 2.0, 2.01)])
def test_a_target_is_met_from_its_bound_on(key: str, met: float, missed: float) -> None:
    assert TARGETS[key].met(met)
    assert not TARGETS[key].met(missed)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.7, "met"), (0.3, "missed")])
def test_the_page_shows_a_missed_target_as_missed(tmp_path: Path, ratio: float, verdict: str) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    written = show.as_json(outcome(ratio), quick=False, stack="native", load=(0.1, 1.9))
    show.replace(results / "reaction.json", written)
    (results / "reaction.png").write_bytes(b"")
    places = "".join(f"<!-- measured: {name} -->\nbefore\n<!-- end -->\n" for name in ("summary", *SCENARIOS))
    (docs / "benchmarks.md").write_text("prose\n" + places)
    page = report.render(results, docs).read_text()
    assert page.startswith("prose\n")
    assert f"| {ratio:.3f} | {verdict} |" in page
    assert "| ours | 90.00 | 80.00 | 200 | 3 | events/s |" in page
    assert "what bounds it" in page
    assert page.count("before") == len(SCENARIOS) - 1 + 1, "what was not measured stays; the load is named"


def test_there_is_no_page_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(report.NothingMeasured):
        report.render(tmp_path, tmp_path)

"""Fixtures that every kind of test may use, and how tests are shared out among workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from deploy.docker.engine import Missing
from deploy.docker.foundation import Containers
from deploy.embedded.foundation import Embedded, Foundation
from deploy.native import Native, artifacts

ROOT = Path(__file__).resolve().parents[1]

# structlog's own way shows every local of every frame: of a large input, minutes of rendering.
_SHOWN = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[structlog.processors.add_log_level, _SHOWN])

pytest.register_assert_rewrite("shared.kit.testing.store_suite", "shared.kit.testing.bus_suite")


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder with other people's records: ``CASES``, or ``shared/data`` beside this repository."""
    folder = Path(os.environ.get("CASES", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no records from elsewhere: {folder} is absent; name another folder by CASES")
    return folder


@pytest.fixture(scope="session")
def stack_kind() -> Foundation:
    """The foundation that ``STACK`` names: embedded, or another where this machine has what that takes."""
    name = os.environ.get("STACK") or "embedded"
    if name == "embedded":
        return Embedded()
    if name == "containers":
        try:
            return Containers()
        except Missing as missing:
            pytest.skip(f"the containers stack cannot run here: {missing}")
    if name != "native":
        pytest.fail(f"STACK={name}: there are embedded, native and containers")
    lacking = artifacts.lacking()
    if lacking is not None:
        pytest.skip(f"the native stack cannot run here: {lacking}")
    return Native()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a broker, a store or a whole stack on one worker, so that it is started once.

    What is about one stack alone is left out where ``STACK`` names another.
    """
    others = {"embedded", "native", "containers"} - {os.environ.get("STACK") or "embedded"}
    items[:] = [item for item in items if not any(mark.name in others for mark in item.iter_markers())]
    for item in items:
        kind = item.path.relative_to(ROOT / "tests").parts[0]
        if kind in {"integration", "e2e"}:
            item.add_marker(pytest.mark.xdist_group(kind))

"""The embedded stack starts, fails, breaks and ends as promised, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.embedded import FOUNDATION, Stack, StackError
from deploy.embedded.ports import accepts

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 60

STARTER = """
import sys
from pathlib import Path
from deploy.embedded import FOUNDATION, Stack

with Stack(Path(sys.argv[1]), only=FOUNDATION) as stack:
    print(*(process.pid for process in stack.processes().values()), flush=True)
    sys.stdin.read()
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG and pidfd_open are Linux's")


def pids(stack: Stack) -> list[int]:
    return [process.pid for process in stack.processes().values() if process.pid is not None]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill_and_await(pid: int) -> None:
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([handle], [], [], SECONDS)[0]
    os.close(handle)


def await_keepers_end(folder: Path) -> None:
    """Return when the keeper of the stack in ``folder`` is gone: it holds this lock as long as it lives."""
    signal.alarm(SECONDS)
    with (folder / "stack.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    signal.alarm(0)


def start_starter(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    return starter, [int(pid) for pid in starter.stdout.readline().split()]


def test_inside_the_block_all_is_ready_and_after_it_nothing_is_left(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", only=FOUNDATION) as stack:
        started = pids(stack)
        ports = [int(stack.broker_address.rpartition(":")[2]), int(stack.mongodb_uri.rpartition(":")[2])]
        assert len(started) == len(FOUNDATION)
        assert all(map(accepts, ports))
    assert not any(map(alive, started))
    assert not any(map(accepts, ports))


def test_an_error_inside_the_block_stops_everything(tmp_path: Path) -> None:
    stack = Stack(tmp_path, only=FOUNDATION)
    started: list[int] = []
    with suppress(ZeroDivisionError), stack:
        started += pids(stack)
        raise ZeroDivisionError
    assert len(started) == len(FOUNDATION)
    assert not any(map(alive, started))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_starter_ends_the_stack(tmp_path: Path, number: signal.Signals) -> None:
    starter, started = start_starter(tmp_path)
    assert len(started) == len(FOUNDATION)
    starter.send_signal(number)
    starter.communicate(timeout=SECONDS)
    await_keepers_end(tmp_path)
    assert not any(map(alive, started))


@on_linux
def test_nothing_outlives_a_keeper_that_was_killed(tmp_path: Path) -> None:
    starter, started = start_starter(tmp_path)
    handles = [os.pidfd_open(pid) for pid in started]
    os.kill(int((tmp_path / "keeper.pid").read_text()), signal.SIGKILL)
    for handle in handles:
        assert select.select([handle], [], [], SECONDS)[0], "a process outlived its keeper"
        os.close(handle)
    starter.communicate(timeout=SECONDS)


def test_a_start_that_fails_says_what_died_and_what_it_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken-broker"
    broken.write_text("#!/bin/sh\necho no space left on this laptop\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(broken))
    folder = tmp_path / "stack"
    with pytest.raises(StackError, match=r"(?s)broker died: exit status 3.*no space left on this laptop"):
        Stack(folder, only=FOUNDATION).start()
    await_keepers_end(folder)


@on_linux
def test_a_death_that_nobody_ordered_is_reported_and_an_ordered_one_is_not(tmp_path: Path) -> None:
    with Stack(tmp_path, only=FOUNDATION) as stack:
        stack.kill("broker")
        stack.check()
        victim = stack.processes()["store"].pid
        assert victim is not None
        kill_and_await(victim)
        with pytest.raises(StackError, match="store died: killed by a signal"):
            stack.check()
        with pytest.raises(StackError, match="store died: killed by a signal"):
            stack.wait_ready(["store"])


def test_a_process_restarts_where_it_was(tmp_path: Path) -> None:
    with Stack(tmp_path, only=FOUNDATION) as stack:
        before = stack.processes()["broker"].pid
        stack.kill("broker")
        assert not accepts(int(stack.broker_address.rpartition(":")[2]))
        stack.restart("broker")
        assert accepts(int(stack.broker_address.rpartition(":")[2]))
        assert stack.processes()["broker"].pid != before
        stack.check()


def test_two_stacks_never_share_a_folder(tmp_path: Path) -> None:
    with Stack(tmp_path, only=["broker"]) as first:
        with pytest.raises(StackError, match="already runs"):
            Stack(tmp_path, only=["broker"]).start()
        first.check()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StackError, match="holds other things"):
        Stack(tmp_path, only=["broker"]).start()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_deep_folder_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("er" * 20)  # longer than a Unix socket's path may be
    with Stack(folder, only=["broker"]) as stack:
        stack.check()
        socket_folder = stack._socket_folder
        assert socket_folder is not None
    assert not socket_folder.exists()


def test_up_leaves_the_stack_running_and_down_stops_it(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deploy.embedded", "--folder", str(tmp_path), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)

    assert run("status").returncode == 1
    up = run("up", "--only", *FOUNDATION)
    assert up.returncode == 0, up.stderr
    stack = Stack.attach(tmp_path)
    assert stack is not None
    started = pids(stack)
    assert len(started) == len(FOUNDATION)
    assert stack.broker_address in run("status").stdout
    assert run("up").stdout.startswith("already running")
    down = run("down")
    assert (down.returncode, down.stdout) == (0, "stopped\n")
    assert not any(map(alive, started))
    assert Stack.attach(tmp_path) is None
    assert run("down").returncode == 0


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no such program: brocker; there are broker, store"):
        Stack(tmp_path, only=["brocker", "store"])


@on_linux
def test_a_stack_whose_keeper_is_gone_says_so(tmp_path: Path) -> None:
    with Stack(tmp_path, only=["broker"]) as stack:
        kill_and_await(int((tmp_path / "keeper.pid").read_text()))
        with pytest.raises(StackError, match="the keeper is gone"):
            stack.check()

"""Every role in a container of its own: images are built, started by compose, played through, scaled.

``STACK=containers``; where public images cannot be pulled, the variables of ``compose.yaml`` name a site's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from deploy.docker import compose, engine
from deploy.docker.roles import PROCESSES, container_of
from deploy.embedded.ports import free_ports
from tests.conftest import ROOT

pytestmark = pytest.mark.containers

MOST_BYTES = 250 * 1000 * 1000
SENDER = "notifications-sender-sms"
MINUTES = 60


@dataclass(frozen=True, slots=True)
class Compose:
    """``docker compose`` with a project of this run's own."""

    docker: str
    project: str
    environment: dict[str, str]

    def __call__(self, *arguments: str, timeout: float = 10 * MINUTES, check: bool = True) -> str:
        command = [self.docker, "compose", "--project-name", self.project, "--progress", "quiet", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(arguments)}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout

    def inside(self, container: str, code: str) -> str:
        """Run Python in a container of a role."""
        return self("exec", "-T", container, "python", "-c", code)

    def containers(self, service: str = "") -> dict[str, dict[str, Any]]:
        """What the engine says of each running container, by its id."""
        ids = self("ps", "--quiet", *filter(None, [service])).split()
        told = subprocess.run([self.docker, "inspect", *ids], capture_output=True, text=True, check=True).stdout
        return {each["Id"]: each for each in json.loads(told)}


@pytest.fixture(scope="module")
def itself() -> Iterator[Compose]:
    """Compose, with the images built; whatever it started is gone afterwards."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker's compose plugin is not installed")
    services = compose.read()["services"]
    arguments = services["referrals-api"]["build"]["args"]
    wanted = [services["kafka"]["image"], services["mongo"]["image"]]
    try:
        running = engine.client()
        for image in (*wanted, arguments["PYTHON_IMAGE"], arguments["BUILDER_IMAGE"]):
            engine.ensure_image(running, image)
    except engine.Missing as missing:
        pytest.skip(f"compose cannot run here: {missing}")
    (port,) = free_ports(1)
    environment = {**os.environ, "KAFKA_PORT": str(port), "CARERELAY_VERSION": "test"}
    itself = Compose(docker, f"carerelay-test-{uuid4().hex[:8]}", environment)
    itself("build", timeout=30 * MINUTES)
    try:
        yield itself
    finally:
        itself("--profile", "demo", "down", "--volumes", "--timeout", "5", check=False)


@pytest.fixture(scope="module")
def core(itself: Compose) -> Compose:
    """Every container of core, ready."""
    try:
        itself("up", "--detach", "--wait", "--wait-timeout", str(8 * MINUTES))
    except AssertionError as failed:
        failed.add_note(itself("ps", "--all") + itself("logs", "--tail", "5"))
        raise
    return itself


def image_of(itself: Compose, name: str) -> dict[str, Any]:
    command = [itself.docker, "image", "inspect", f"carerelay/{name}:test"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found: dict[str, Any] = told[0]
    return found


@pytest.mark.parametrize("service", PROCESSES)
def test_an_image_is_small_and_holds_one_service(itself: Compose, service: str) -> None:
    name = service.replace("_", "-")
    image = image_of(itself, name)
    assert image["Size"] < MOST_BYTES
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Entrypoint"] == ["python", "/app"]
    assert image["Config"]["Healthcheck"]["Test"][0] == "CMD"
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == f"carerelay-{service}"
    look = "import os; print(sorted(os.listdir('/app/services')), os.path.exists('/app/shared/kit/testing'))"
    hardened = ["--rm", "--read-only", "--network", "none", "--entrypoint", "python"]
    command = [itself.docker, "run", *hardened, f"carerelay/{name}:test", "-c", look]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert there.split("] ") == [str(sorted(["__init__.py", "__pycache__", service]))[:-1], "False\n"]


def test_every_container_runs_without_rights_and_writes_nowhere(core: Compose) -> None:
    attempt = """
import os
status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
try:
    open("/app/written", "w")
    wrote = True
except OSError:
    wrote = False
open("/tmp/scratch", "w").close()
print(os.getuid(), int(status["CapEff"], 16), int(status["NoNewPrivs"]), wrote)
"""
    for service, roles in PROCESSES.items():
        for role in roles:
            assert core.inside(container_of(service, role), attempt) == "10001 0 1 False\n", (service, role)


def test_a_service_reaches_its_own_database_and_no_other(core: Compose) -> None:
    attempt = """
import os
from pymongo import MongoClient
from pymongo.errors import OperationFailure
client = MongoClient(os.environ["MONGODB_URI"])
client.get_default_database().things.insert_one({})
for other in ("intake", "admin"):
    try:
        client[other].things.find_one()
        print("let in")
    except OperationFailure as refusal:
        print(refusal.code)
"""
    assert core.inside("referrals-api", attempt).split() == ["13", "13"]


def test_the_demos_patients_come_to_their_ends_and_again_with_four_senders_for_one(core: Compose) -> None:
    assert _demo(core).endswith("15 of 15 referrals ended as expected")

    before = set(core.containers())
    _scale(core, 4)
    assert before < set(core.containers()), "nobody else was touched"
    assert len(core.containers(SENDER)) == 4

    told = _demo(core)
    assert f"playing through {sum(map(len, PROCESSES.values())) + 3} processes" in told
    assert told.endswith("15 of 15 referrals ended as expected")

    _scale(core, 1)
    assert set(core.containers()) == before


def test_a_container_that_is_stopped_ends_what_it_does_and_leaves_well(core: Compose) -> None:
    (id,) = core.containers("scheduling-jobs")
    core("stop", "--timeout", "60", "scheduling-jobs")
    told = subprocess.run([core.docker, "inspect", id], capture_output=True, text=True, check=True).stdout
    assert json.loads(told)[0]["State"]["ExitCode"] == 0, "it ended by itself, and was not killed"
    assert '"event": "stopped"' in core("logs", "--no-log-prefix", "--tail", "5", "scheduling-jobs")


def _demo(core: Compose) -> str:
    return core("run", "--rm", "--no-TTY", "--no-deps", "demo").strip()


def _scale(core: Compose, number: int) -> None:
    try:
        core("up", "--detach", "--no-recreate", "--no-deps", "--wait", "--scale", f"{SENDER}={number}", SENDER)
    except AssertionError as failed:
        checks = {each["Name"]: each["State"]["Health"]["Log"] for each in core.containers(SENDER).values()}
        failed.add_note(json.dumps(checks, indent=1) + core("logs", "--tail", "20", SENDER))
        raise

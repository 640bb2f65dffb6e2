"""What the native stack is made of, and where it is kept: fetched or built once, in the user's cache folder.

Kafka's jars are copied by Maven from what ``pom.xml`` names; the store is ``mongod`` where there is one on PATH, else
``secantusd-rs``, built by cargo. Nothing is written into the checkout.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")

STORE_CRATE = "secantus-mdb"
STORE_VERSION = "0.5.3-beta.196"
"""Its crates declare a newer compiler than they use: with ``--ignore-rust-version`` cargo 1.95 builds them."""

_JAVA_AT_LEAST = 17
_LOG_LINES = 30


class Missing(Exception):
    """This machine lacks what the native stack needs; says what."""


class BuildFailed(Exception):
    """A tool that is there did not do its work; shows its last lines."""


def cache() -> Path:
    """The folder that what was fetched and built is kept in: ``$XDG_CACHE_HOME/carerelay``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carerelay"


def kafka_version() -> str:
    """The version that ``pom.xml`` pins."""
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)</version>", POM.read_text())
    if found is None:
        raise ValueError(f"{POM.name} names no version of Kafka")
    return found.group(1)


def lacking() -> str | None:
    """What keeps the native stack from running on this machine, or None; asks no network."""
    try:
        _java()
        if not _kafka_folder().is_dir():
            _tool("mvn", "Maven, which fetches Kafka")
        if _mongod() is None and not _store_file().is_file():
            _tool("cargo", "mongod, or cargo, which builds the store,")
            _tool("cmake", "CMake, which the store's build needs,")
            _tool("cc", "a C compiler, which the store's build needs,")
    except Missing as missing:
        return str(missing)
    return None


def kafka() -> Path:
    """The folder with Kafka's jars, fetched if need be. Raises Missing or BuildFailed."""
    _java()
    return _made(_kafka_folder(), _fetch_kafka)


def store() -> Path:
    """The store's program: ``mongod`` from PATH, else ``secantusd-rs``, built if need be.

    Raises Missing or BuildFailed.
    """
    found = _mongod()
    return found if found is not None else _made(_store_folder(), _build_store) / "bin" / _store_file().name


def java() -> str:
    """The Java that runs Kafka. Raises Missing."""
    return _java()


def _fetch_kafka(folder: Path) -> None:
    mvn = _tool("mvn", "Maven, which fetches Kafka")
    arguments = [mvn, "--batch-mode", "--file", str(POM), "dependency:copy-dependencies"]
    _run([*arguments, f"-DoutputDirectory={folder}"], "fetching Kafka")


def _build_store(folder: Path) -> None:
    cargo = _tool("cargo", "mongod, or cargo, which builds the store,")
    with tempfile.TemporaryDirectory(prefix="carerelay-build-") as target:
        arguments = [cargo, "install", STORE_CRATE, "--version", STORE_VERSION, "--locked", "--ignore-rust-version"]
        _run([*arguments, "--root", str(folder), "--target-dir", target], f"building {STORE_CRATE}")


def _kafka_folder() -> Path:
    return cache() / f"kafka-{kafka_version()}"


def _store_folder() -> Path:
    return cache() / f"{STORE_CRATE}-{STORE_VERSION}"


def _store_file() -> Path:
    return _store_folder() / "bin" / "secantusd-rs"


def _mongod() -> Path | None:
    found = shutil.which("mongod")
    return Path(found) if found else None


def _tool(name: str, what: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{what} is not on PATH ({name})")
    return found


def _java() -> str:
    java = _tool("java", f"Java {_JAVA_AT_LEAST} or later")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version.group(1)) < _JAVA_AT_LEAST:
        raise Missing(f"Java {_JAVA_AT_LEAST} or later is needed; the one on PATH says {said.splitlines()[:1]}")
    return java


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made whole or not at all, by one process at a time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent / f".{folder.name}.lock"):
        if not folder.is_dir():
            print(f"making {folder.name}, once ...", file=sys.stderr, flush=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                make(fresh)
                fresh.chmod(0o755)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(arguments: Sequence[str], what: str) -> None:
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-_LOG_LINES:])
        raise BuildFailed(f"{what} failed with status {done.returncode}:\n{last}")

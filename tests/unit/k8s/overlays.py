"""The manifests as they lie there and as kustomize makes them, for tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.k8s.__main__ import FOLDER

Manifest = dict[str, Any]

OVERLAYS = ("dev", "prod")


@cache
def built(overlay: str) -> tuple[Manifest, ...]:
    """Everything in an overlay. Skips the test where there is nothing that builds one."""
    build = _kustomize()
    if build is None:
        pytest.skip("neither kubectl nor kustomize is on PATH: overlays cannot be built here")
    done = subprocess.run([*build, str(FOLDER / "overlays" / overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(read(done.stdout))


def _kustomize() -> list[str] | None:
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    return [kubectl, "kustomize"] if (kubectl := shutil.which("kubectl")) else None


def files() -> list[Path]:
    """Every file of manifests, kustomize's own and patches included."""
    return sorted(FOLDER.rglob("*.yaml"))


def read(text: str) -> Iterator[Manifest]:
    """The manifests in a text."""
    return (each for each in yaml.safe_load_all(text) if each is not None)


def whole(path: Path) -> list[Manifest]:
    """The manifests of a file that stand for themselves: no patches, nothing that is kustomize's."""
    found = read(path.read_text(encoding="utf-8"))
    return [each for each in found if "kustomize" not in each["apiVersion"] and each["metadata"]["name"] != "every"]


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """Those of these kinds."""
    return [each for each in manifests if each["kind"] in kinds]


def ours(manifests: Iterable[Manifest], kind: str) -> dict[str, Manifest]:
    """CareRelay's own of a kind, by name."""
    return {
        each["metadata"]["name"]: each
        for each in of_kind(manifests, kind)
        if each["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "carerelay"
    }


def settings(manifests: Iterable[Manifest], name: str) -> dict[str, str]:
    """What a generated ConfigMap holds, by the name that it has before its hash."""
    (found,) = [each for each in of_kind(manifests, "ConfigMap") if each["metadata"]["name"].rpartition("-")[0] == name]
    return found.get("data") or {}

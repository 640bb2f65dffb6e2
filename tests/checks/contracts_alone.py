"""The published language installed by itself, as another team installs it: a Python without this repository in it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "shared" / "contracts"


def install(folder: Path) -> Path:
    """A virtual environment with ``carerelay-contracts`` installed into it; returns its Python.

    Needs no network: it builds with what is installed here, and finds what is installed here, but not this repository.
    Raises subprocess.CalledProcessError where the package cannot be built.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars=paths))
    (site / "what_is_installed_here.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "install", *options, str(PACKAGE)], check=True, capture_output=True, text=True, cwd=folder)
    return python

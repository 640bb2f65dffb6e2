"""Runs a service's own ``__main__`` with the newer release's changes made to its modules as each is loaded."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from tests.e2e.newer_release.changes import CHANGES

Change = Callable[[ModuleType], None]


class _Changed(Loader):
    """Loads a module as it is, and changes it before anybody can import from it."""

    def __init__(self, released: Loader, change: Change) -> None:
        self._released = released
        self._change = change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._released.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._released.exec_module(module)
        self._change(module)


class _Newer(MetaPathFinder):
    """Finds the modules that the newer release changes."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self._changes = changes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._changes:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Changed(spec.loader, self._changes[fullname])
        return spec


if __name__ == "__main__":
    service = sys.argv.pop(1)
    sys.meta_path.insert(0, _Newer(CHANGES))
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)

"""The kit's toy service as a process of its own: ``python -m tests.integration.toy_process all``."""

from __future__ import annotations

from shared.kit.run import main
from shared.kit.settings import KitSettings
from tests.unit.kit.toy import build

if __name__ == "__main__":
    main("toy", KitSettings, build)

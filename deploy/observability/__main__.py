"""``python -m deploy.observability``: writes the pages and dashboards that are made of the metric catalogue."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.observability.dashboards import dashboards
from deploy.observability.pages import metrics_page

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = Path(__file__).with_name("grafana")


def written() -> dict[Path, str]:
    """Every file that is written, with what stands in it."""
    boards = {GRAFANA / name: text for name, text in dashboards().items()}
    return {ROOT / "docs" / "metrics.md": metrics_page(), **boards}


def main() -> int:
    """Write them; returns the exit status."""
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m deploy.native fetch|lacking``: get what the native stack is made of, or say what it lacks here."""

from __future__ import annotations

import argparse
import sys

from deploy.native import artifacts

NOT_HAD = 3
"""The exit status where a part is missing here, or did not come or build; anything else is a fault of ours."""


def main() -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.native", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch and build what is not in the cache, and print where it is")
    commands.add_parser("lacking", help="exit 1, and say why, where this machine cannot run it")
    if parser.parse_args().command == "lacking":
        lacking = artifacts.lacking()
        if lacking is not None:
            print(lacking)
        return 0 if lacking is None else 1
    try:
        print(artifacts.kafka())
        print(artifacts.store())
    except (artifacts.Missing, artifacts.BuildFailed) as error:
        print(error, file=sys.stderr)
        return NOT_HAD
    return 0


if __name__ == "__main__":
    sys.exit(main())

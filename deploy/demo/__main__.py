"""``python -m deploy.demo [--bundles DIR]``: starts the embedded stack, plays patients through it, shows what happened.

Exits with 0 if and only if every referral ended as expected.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from deploy.demo.performance import NoStage, Stage, arguments, perform
from deploy.embedded.stack import ROOT, Stack, StackError

# Moving the clock wakes the workers at once, so they need not look often by themselves.
_ENVIRONMENT = {"POLL_SECONDS": "1", "LOG_LEVEL": "WARNING"}
_DATA = ROOT / ".data" / "demo"


def main(given: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code says whether all referrals ended as expected."""
    parser = arguments("python -m deploy.demo", __doc__)
    parser.add_argument("--data", type=Path, default=_DATA, help="where the stack writes; logs stay until the next run")
    options = parser.parse_args(given)
    return perform(partial(_embedded, options.data), options.bundles)


@contextmanager
def _embedded(folder: Path, console: Console) -> Iterator[Stage]:
    console.print("starting broker, store, payer, gateways and the services ...")
    try:
        with Stack(folder, environment=_ENVIRONMENT) as stack:
            yield Stage(stack.addresses, stack.token, stack.clock_offset_file, traces=stack.traces)
    except StackError as error:
        raise NoStage(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())

"""The stack's process manager: supervisord, which stops everything when whoever started the stack is gone.

Without this a killed test run or demo leaves a broker, a store and seven services behind. The one who starts it holds
the other end of its standard input: at its end, however it came about, the stack is stopped. A ``.`` read from it
lets go: the stack then stays until ``down``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from threading import Thread

from supervisor import supervisord

LET_GO = b"."
"""Written to the keeper's standard input by a starter who leaves the stack running."""

KEEPER = "CARERELAY_KEEPER"
"""The environment variable that tells ``leash`` whose child it must be."""

AFTERWARDS = "CARERELAY_AFTERWARDS"
"""The environment variable with a command, as a JSON list, that is run when everything is stopped."""


def _follow_starter() -> None:
    if os.read(sys.stdin.fileno(), 1) != LET_GO:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run supervisord in the foreground with this process' arguments."""
    os.environ[KEEPER] = str(os.getpid())
    Thread(target=_follow_starter, daemon=True).start()
    try:
        supervisord.main(sys.argv[1:])
    finally:
        if command := json.loads(os.environ.get(AFTERWARDS, "[]")):
            subprocess.run(command, check=False)


if __name__ == "__main__":
    main()

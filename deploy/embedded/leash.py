"""Becomes the program given as arguments, after asking the kernel to kill it when the keeper dies.

``kill -9`` of the keeper lets it stop nothing any more; on Linux its children then go with it (PR_SET_PDEATHSIG,
which survives exec). Elsewhere the program just runs. Standard library only: it runs without site-packages, to be fast.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by ``sys.argv[1:]``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The keeper may have died before the request above: then nobody would ever send the signal.
    keeper = os.environ.get("CARERELAY_KEEPER")
    if keeper is not None and os.getppid() != int(keeper):
        sys.exit("the keeper of this stack is gone")
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - becoming the program is the point, and no shell is wanted


if __name__ == "__main__":
    main()

"""``python /app ROLE``: becomes the module that the image was made for, with the role as its argument.

It is the container's first process, to which the kernel delivers no signal that it has no handler for: until the module
sets its own, SIGTERM ends it here, so that a container stopped while it starts is gone at once.
"""

import os
import runpy
import signal
import sys


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


signal.signal(signal.SIGTERM, _end)
module = os.environ["CARERELAY_MODULE"]
sys.argv[0] = module
runpy.run_module(module, run_name="__main__", alter_sys=True)

"""``python -m deploy.docker.prepare``: what must be there before services start, made once, checked each time.

In the store a database and a user for each service, who can do nothing in another's; beside it the file of the clock
that they share. Environment: ``MONGODB_ADMIN_URI``, a user's password as ``<SERVICE>_STORE_PASSWORD``, and
``CLOCK_OFFSET_FILE``.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from deploy.docker.roles import PROCESSES

Client = MongoClient[dict[str, Any]]

PATIENCE = 60_000
"""Milliseconds that the store may take to answer."""


def users_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Each service's password. Raises KeyError, naming the variable, for one that is missing."""
    return {service: environment[f"{service.upper()}_STORE_PASSWORD"] for service in PROCESSES}


def ensure_user(client: Client, service: str, password: str) -> None:
    """One service's user, in its own database, with the password that it is given now."""
    database = client[service]
    known = database.command("usersInfo", service)["users"]
    command = "updateUser" if known else "createUser"
    database.command(command, service, pwd=password, roles=[{"role": "readWrite", "db": service}])


def ensure_clock(path: Path) -> None:
    """The clock's file, at no offset where there was none: made whole, so that nobody maps half of it."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.new")
        draft.write_bytes(struct.pack("<d", 0.0))
        draft.replace(path)


def main() -> int:
    """Do it; the exit status."""
    try:
        users = users_of(os.environ)
        client: Client = MongoClient(os.environ["MONGODB_ADMIN_URI"], serverSelectionTimeoutMS=PATIENCE)
        with client:
            for service, password in users.items():
                ensure_user(client, service, password)
    except KeyError as missing:
        print(f"{missing.args[0]} is not set", file=sys.stderr)
        return 2
    except PyMongoError as error:
        # Not what the server said: it may repeat the command, and with it a password.
        code = f", code {error.code}" if isinstance(error, OperationFailure) else ""
        print(f"the store could not be prepared: {type(error).__name__}{code}", file=sys.stderr)
        return 1
    if clock := os.environ.get("CLOCK_OFFSET_FILE"):
        ensure_clock(Path(clock))
    print(f"ready for {', '.join(users)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

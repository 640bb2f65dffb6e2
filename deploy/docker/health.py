"""``python health.py [PATH]``: exit 0 where this container's own port answers PATH with 200.

``/health/live`` by default. By the socket alone: an HTTP client takes longer to import than a service to answer, and
every container asks every few seconds.
"""

import os
import socket
import sys

SECONDS = 4.0


def answer(port: int, path: str) -> bytes:
    """The beginning of what the port says to a GET."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return connection.recv(64)


def main() -> int:
    """The exit status."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/health/live"
    try:
        said = answer(int(os.environ.get("HTTP_PORT", "8000")), path)
    except OSError as error:
        print(error)
        return 1
    return 0 if b" 200 " in said.partition(b"\r\n")[0] else 1


if __name__ == "__main__":
    sys.exit(main())

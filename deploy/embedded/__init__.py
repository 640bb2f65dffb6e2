"""CareRelay on one machine with nothing but Python: see README.md here."""

from deploy.embedded.stack import FOUNDATION, Stack, StackError
from deploy.embedded.supervision import Process

__all__ = ["FOUNDATION", "Process", "Stack", "StackError"]

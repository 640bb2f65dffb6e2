"""The same stack on Apache Kafka and a compiled store: see README.md here."""

from deploy.native.artifacts import BuildFailed, Missing
from deploy.native.foundation import Native

__all__ = ["BuildFailed", "Missing", "Native"]

"""Where events travel: the port, its Kafka adapter, the CloudEvents envelope, and the publisher of outboxes."""

from shared.kit.bus.port import Batch, Bus, Handler, Message, Positions, PublishFailed, Record

__all__ = ["Batch", "Bus", "Handler", "Message", "Positions", "PublishFailed", "Record"]

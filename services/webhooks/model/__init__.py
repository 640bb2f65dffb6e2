"""Endpoints, streams of kept events, and feeds: what is to be sent to one endpoint about one document, in order."""

from services.webhooks.model.endpoint import Endpoint, EndpointState
from services.webhooks.model.feed import Feed, FeedState
from services.webhooks.model.stream import Stream, StreamState

__all__ = ["Endpoint", "EndpointState", "Feed", "FeedState", "Stream", "StreamState"]

"""Signed webhooks (Standard Webhooks) for teams without Kafka: public events, sent to the endpoints that want them."""

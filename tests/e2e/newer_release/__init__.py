"""A release that is to come: ``python -m tests.e2e.newer_release <service> <role>`` runs a service as it will be then.

A field more on two documents, an event in a second version beside the first, and who reads both: ``changes``.
"""

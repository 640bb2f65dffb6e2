"""The published language of CareRelay: the events of each service, one module a service."""

__version__ = "0.1.0"
"""Of the language: a new major one may withdraw events, a new minor one only adds. See ``released``."""

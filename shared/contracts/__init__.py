"""The published language of CareRelay: the events of each service, one module a service."""

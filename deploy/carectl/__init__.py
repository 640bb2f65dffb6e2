"""``carectl``: CareRelay from an operator's chair, over the services' ``/operations``, with the operator's token."""

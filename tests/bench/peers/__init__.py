"""What a straightforward team would build the reminder path on: a module a peer, with its workers' tasks beside it."""

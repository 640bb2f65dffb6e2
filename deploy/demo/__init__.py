"""Plays patients through a running CareRelay, by its public APIs only, and shows what became of them."""

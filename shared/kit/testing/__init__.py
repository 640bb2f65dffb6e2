"""Parts for tests: an in-memory store and bus that pass the same suites as the real ones, and the suites."""

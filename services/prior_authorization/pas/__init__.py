"""Da Vinci PAS 2.2.1 at the payer's side of this service: requests written, answers read, the client between."""

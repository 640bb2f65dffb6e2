"""The documents of scheduling and their decisions: ``calendar``, ``appointment``, ``person``. Pure."""

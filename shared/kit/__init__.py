"""The chassis under every service: documents, store, bus, reactions, jobs, api. See README.md beside this file."""

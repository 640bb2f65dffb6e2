"""CareRelay on Kubernetes: see README.md here."""

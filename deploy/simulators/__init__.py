"""The outside world of CareRelay, scripted: a payer, a message gateway, an identity provider. See README.md here."""

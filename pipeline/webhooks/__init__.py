"""Receive webhooks from PayPal: verify, store durably, then answer."""

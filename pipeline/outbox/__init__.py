"""TODO: what pipeline/outbox is."""

"""TODO: what pipeline/webhooks is."""

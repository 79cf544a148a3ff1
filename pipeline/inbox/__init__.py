"""TODO: what pipeline/inbox is."""

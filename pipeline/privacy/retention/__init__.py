"""TODO: what pipeline/privacy/retention is."""

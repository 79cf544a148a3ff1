"""TODO: what pipeline/db is."""

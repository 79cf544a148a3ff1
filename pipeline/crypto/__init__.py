"""TODO: what pipeline/crypto is."""

"""TODO: what pipeline/privacy/erasure is."""

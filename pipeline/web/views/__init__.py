"""TODO: what pipeline/web/views is."""

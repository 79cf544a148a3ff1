"""TODO: what pipeline/scheduler is."""

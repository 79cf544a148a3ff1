"""TODO: what pipeline/operations/backup is."""

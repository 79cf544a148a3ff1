"""TODO: what pipeline/cli/commands is."""

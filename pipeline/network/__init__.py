"""TODO: what pipeline/network is."""

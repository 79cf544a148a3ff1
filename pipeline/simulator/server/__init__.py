"""TODO: what pipeline/simulator/server is."""

"""TODO: what pipeline/policy/evidence is."""

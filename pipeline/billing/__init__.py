"""TODO: what pipeline/billing is."""

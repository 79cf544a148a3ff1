"""TODO: what pipeline/app/doctor is."""

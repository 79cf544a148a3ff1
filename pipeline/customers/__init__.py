"""TODO: what pipeline/customers is."""

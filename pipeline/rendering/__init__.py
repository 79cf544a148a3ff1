"""TODO: what pipeline/rendering is."""

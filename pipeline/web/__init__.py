"""Pages and doors: routes only, no decisions."""

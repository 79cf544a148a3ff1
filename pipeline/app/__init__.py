"""The composition root: everything is made from the settings here, and run as roles or jobs."""

"""Retention periods, and the run that deletes data past its period. May import the tables, but not `erasure`."""

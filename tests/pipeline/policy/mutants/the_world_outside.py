"""Mutants outside the program: relay, proxy, backup, operator, settings."""

"""Mutants that leave personal data in places outside the tables."""

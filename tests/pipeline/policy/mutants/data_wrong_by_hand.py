"""Mutants that change rows as a mistaken operator, or a control that was off for a while, would."""

"""The checks of `smt-billing doctor`: `examine` runs them all, each other module holds the checks of one area."""

"""The checks of `smt-billing doctor`. `examine` runs all of them; each other module contains the checks of one area."""

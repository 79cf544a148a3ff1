"""The demo: a vendor's first months, played in one process at high speed."""

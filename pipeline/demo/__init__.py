"""The demo: plays a vendor's first months against a simulated PayPal, in one process at high speed.

May import the packages below it in docs/architecture.md.
"""

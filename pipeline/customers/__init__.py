"""Customers as people: their account, sign-up, sign-in, what they agreed to, and the limits on what anyone may ask for.

May import inbox, outbox, rendering, crypto, network and db.
"""

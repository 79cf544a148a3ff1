"""A copy of everything we hold about one customer: gathered, written as a page and as data, signed, and offered by a link.

May import customers, outbox, rendering and below.
"""

"""Inbound mail: read a Maildir, parse and store each message, acknowledge it, and open a request for the operator.

Nothing here changes a customer's data or settings. May import privacy, customers, outbox and below.
"""

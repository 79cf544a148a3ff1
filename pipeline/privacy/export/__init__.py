"""Data export: a signed ZIP with all data of one customer, as a page and as JSON, offered by a link in a mail.

May import customers, outbox, rendering and below.
"""

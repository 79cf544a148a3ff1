"""Privacy requests, data export, erasure, retention periods, the access log of the pages, and the audit log of operators.

May import customers, outbox, rendering, crypto and db.
"""

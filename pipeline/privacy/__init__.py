"""What people may ask of us, and the proof that it was done: requests, export, erasure, retention, and who read what.

May import customers, outbox, rendering, crypto and db.
"""

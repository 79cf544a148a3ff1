"""The privacy policy, executable: its clauses, the text written from them, and a check of the live system for each clause.

May import inbound_mail, privacy, customers and below; tests import it, it imports no test.
"""

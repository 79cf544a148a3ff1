"""Privacy policy as data: clauses, the text generated from them, its versions, and a check of the live system per clause.

May import inbound_mail, privacy, customers and the packages below them, but no tests.
"""

"""Lists and details of events, mails, subscriptions, customers and requests for the command line, as plain dicts.

May import privacy, mailer, customers, inbox, outbox and below.
"""

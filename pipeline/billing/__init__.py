"""State of subscriptions and payments, and the decision which mail to queue. It never sends a mail or calls PayPal.

unit_of_work     the rows that a batch of events can change: loaded, locked, written once
subscription     statuses, allowed status transitions, effects of a subscription event
payment          sales and refunds
entitlement      the paid-through date
notifications    the mails for an event, and their contents
reminders        how many days before a renewal its reminder is due
"""

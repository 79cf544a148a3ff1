"""State of subscriptions and payments, and the mails that follow from it. Nothing here sends a mail or calls PayPal.

unit_of_work     the rows that a batch of events may touch: loaded, locked, written once
subscription     statuses, the table of allowed transitions, what a subscription event changes
payment          sales and refunds
entitlement      until when a customer has paid
notifications    the mail that an event calls for
reminders        how many days before a renewal its reminder is due
"""

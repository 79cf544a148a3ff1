"""A buyer was sent to PayPal to approve: we note who is coming. No access, no money, no mail.

It may arrive after ACTIVATED. https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "BILLING.SUBSCRIPTION.CREATED"


def handle(event: Event, books: Books) -> None:
    subscription.see(books, event)

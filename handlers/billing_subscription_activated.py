"""A subscription begins: the customer is told that their account is set up, once, however often it is told.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import notices, subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "BILLING.SUBSCRIPTION.ACTIVATED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notices.for_status(books, event, move)

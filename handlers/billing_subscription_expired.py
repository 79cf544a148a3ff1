"""All cycles are done. Final; nothing is owed, so nobody is written to.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "BILLING.SUBSCRIPTION.EXPIRED"


def handle(event: Event, books: Books) -> None:
    subscription.see(books, event)

"""No charges until it is re-activated: too many failed, or the vendor, or the buyer, stopped it. The customer is told.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import notices, subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "BILLING.SUBSCRIPTION.SUSPENDED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notices.for_status(books, event, move)

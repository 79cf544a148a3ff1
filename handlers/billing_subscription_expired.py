"""All cycles are done. Final; nothing is owed, so nobody is written to, unless the resource tells of another end.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import notices, subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "BILLING.SUBSCRIPTION.EXPIRED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notices.for_status(books, event, move)

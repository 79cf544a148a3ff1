"""A suspended subscription goes on. Documented for old agreements; a new one may send ACTIVATED instead.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import notices, subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "BILLING.SUBSCRIPTION.RE-ACTIVATED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notices.for_status(books, event, move)

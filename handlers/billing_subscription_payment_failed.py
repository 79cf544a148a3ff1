"""A charge attempt failed; the status stays as it is. The customer is told when PayPal tries again, and what to do.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import notices, subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "BILLING.SUBSCRIPTION.PAYMENT.FAILED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notices.for_status(books, event, move)
    notices.for_failure(books, event)

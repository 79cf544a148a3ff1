"""A subscription begins: the customer is told that their account is set up, once, however often it is told.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import Books
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.ACTIVATED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notifications.mail_for_status(books, event, move)

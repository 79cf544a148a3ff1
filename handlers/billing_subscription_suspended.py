"""No charges until it is re-activated: too many failed, or the vendor, or the buyer, stopped it. The customer is told.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import Books
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.SUSPENDED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notifications.mail_for_status(books, event, move)

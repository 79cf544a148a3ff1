"""All cycles are done. Final; nothing is owed, so nobody is written to, unless the resource tells of another end.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import Books
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.EXPIRED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notifications.mail_for_status(books, event, move)

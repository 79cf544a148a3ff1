"""PayPal's answer to our question about a subscription: taken in like its own news."""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import Books
from pipeline.inbox.event import Event

EVENT = "READ.SUBSCRIPTION"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notifications.mail_for_status(books, event, move)

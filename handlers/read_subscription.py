"""PayPal's answer to our question about a subscription: taken in like its own news."""

from pipeline import notices, subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "READ.SUBSCRIPTION"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notices.for_status(books, event, move)

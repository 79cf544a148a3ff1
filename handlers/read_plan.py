"""PayPal's answer to our question about a plan: how often, how much."""

from pipeline import subscription
from pipeline.books import Books
from pipeline.event import Event

EVENT = "READ.PLAN"


def handle(event: Event, books: Books) -> None:
    subscription.see_plan(books, event)

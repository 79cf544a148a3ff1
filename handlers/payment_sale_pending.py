"""Money is on its way: an eCheck, a review, a hold. The event's name counts, not its state, which may say completed.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import payment
from pipeline.books import Books
from pipeline.event import Event

EVENT = "PAYMENT.SALE.PENDING"


def handle(event: Event, books: Books) -> None:
    payment.see_sale(books, event, "pending")

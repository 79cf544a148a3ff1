"""A pending payment was refused. The customer is told.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import notices, payment
from pipeline.books import Books
from pipeline.event import Event

EVENT = "PAYMENT.SALE.DENIED"


def handle(event: Event, books: Books) -> None:
    sale = payment.see_sale(books, event, "denied")
    notices.for_sale(books, event, sale)

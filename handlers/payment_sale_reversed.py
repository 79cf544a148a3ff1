"""PayPal took money back: a chargeback, or a bank's reversal. PayPal tells the buyer; we keep the books.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline import payment
from pipeline.books import Books
from pipeline.event import Event

EVENT = "PAYMENT.SALE.REVERSED"


def handle(event: Event, books: Books) -> None:
    payment.see_refund(books, event, "reversal")

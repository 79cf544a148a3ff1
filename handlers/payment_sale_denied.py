"""A pending payment was refused. The customer is told.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import Books
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.DENIED"


def handle(event: Event, books: Books) -> None:
    sale = payment.apply_sale(books, event, "denied")
    notifications.mail_for_sale(books, event, sale)

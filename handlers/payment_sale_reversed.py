"""PayPal took money back: a chargeback, or a bank's reversal. PayPal tells the buyer; we keep the books.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.REVERSED"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_refund(uow, event, "reversal")

"""PayPal took a payment back (chargeback or bank reversal): store the reversal. PayPal itself informs the buyer.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.REVERSED"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_refund(uow, event, "reversal")

"""The vendor refunded a payment, in part or in full: store the refund, and queue a refund receipt.

The amount may have a minus sign, and the sale's id may appear only in a link.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.REFUNDED"


def handle(event: Event, uow: UnitOfWork) -> None:
    sale = payment.apply_refund(uow, event, "refund")
    notifications.mails_for_refunds(uow, event, sale)

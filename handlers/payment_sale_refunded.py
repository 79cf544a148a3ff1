"""We gave money back, in part or in full. The customer gets a receipt for it.

The amount comes with or without a minus sign, the sale's id sometimes only in a link. https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.REFUNDED"


def handle(event: Event, uow: UnitOfWork) -> None:
    sale = payment.apply_refund(uow, event, "refund")
    notifications.mails_for_refunds(uow, event, sale)

"""A pending payment was refused: store the refusal, and mail the customer.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.DENIED"


def handle(event: Event, uow: UnitOfWork) -> None:
    sale = payment.apply_sale(uow, event, "denied")
    notifications.mail_for_sale(uow, event, sale)

"""A payment arrived (first charge, set-up fee or renewal): store it, and queue one receipt per sale.

A held payment completes a second time, weeks later, when PayPal releases it.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.COMPLETED"


def handle(event: Event, uow: UnitOfWork) -> None:
    sale = payment.apply_sale(uow, event, "completed")
    notifications.mail_for_sale(uow, event, sale)

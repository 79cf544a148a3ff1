"""A charge attempt failed: store it, and mail the customer when PayPal tries again and what to do.

The failure does not change the status.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.PAYMENT.FAILED"


def handle(event: Event, uow: UnitOfWork) -> None:
    change = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, change)
    notifications.mail_for_failed_payment(uow, event)

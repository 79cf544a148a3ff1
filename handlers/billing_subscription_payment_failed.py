"""A charge attempt failed; the status stays as it is. The customer is told when PayPal tries again, and what to do.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.PAYMENT.FAILED"


def handle(event: Event, uow: UnitOfWork) -> None:
    move = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, move)
    notifications.mail_for_failed_payment(uow, event)

"""A buyer was sent to PayPal to approve a subscription: store it. It gives no access, and no money has been paid.

The event may arrive after ACTIVATED and report the newer status. Only then is a mail queued.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.CREATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    change = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, change)

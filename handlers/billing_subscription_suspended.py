"""A subscription is suspended: store the status, and mail the customer.

PayPal charges nothing until it is re-activated. Either too many payments failed, or the vendor or the buyer suspended it.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.SUSPENDED"


def handle(event: Event, uow: UnitOfWork) -> None:
    change = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, change)

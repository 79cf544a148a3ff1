"""A suspended subscription is active again: store the status. The set-up mail is queued only if it never was.

PayPal documents this event for old billing agreements; a new subscription may send ACTIVATED instead.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.RE-ACTIVATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    change = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, change)

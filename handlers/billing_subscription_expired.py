"""A subscription has completed all its cycles: store the final status.

No mail is queued, unless the resource reports another end.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.EXPIRED"


def handle(event: Event, uow: UnitOfWork) -> None:
    change = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, change)

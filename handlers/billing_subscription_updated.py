"""Plan, quantity or anything else changed; the resource tells what is so now, a status we missed included.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.UPDATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    move = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, move)

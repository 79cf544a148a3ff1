"""All cycles are done. Final; nothing is owed, so nobody is written to, unless the resource tells of another end.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.EXPIRED"


def handle(event: Event, uow: UnitOfWork) -> None:
    move = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, move)

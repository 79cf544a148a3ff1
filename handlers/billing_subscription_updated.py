"""The plan, quantity or another detail of a subscription changed: store its current state.

The resource contains the whole current state, including a status whose own event was missed.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.UPDATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    change = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, change)

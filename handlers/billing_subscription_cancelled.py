"""Nothing more will be charged. The customer keeps what was paid, and is told until when.

Real events have no next_billing_time: the date known from before stays. https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.CANCELLED"


def handle(event: Event, uow: UnitOfWork) -> None:
    move = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, move)

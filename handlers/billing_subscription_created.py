"""A buyer was sent to PayPal to approve: we note who is coming. No access, no money, no mail.

It may arrive after ACTIVATED, and tell what is so by then: only then there is a mail. https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.CREATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    move = subscription.apply_event(uow, event)
    notifications.mail_for_status(uow, event, move)

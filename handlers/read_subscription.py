"""PayPal answered a look-up of a subscription: store its state, and queue mail as for a webhook."""

from pipeline.billing import notifications, payment, subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "READ.SUBSCRIPTION"


def handle(event: Event, uow: UnitOfWork) -> None:
    change = subscription.apply_event(uow, event)
    payment.request_doubtful_sales(uow, event)
    notifications.mail_for_status(uow, event, change)

"""A payment is pending (eCheck, review or hold): store it. The event itself needs no mail.

The event's name decides, not its `state`, which may be `completed`.
If the final event came first without a subscription id, this event may supply it; then the mails of the final event are
queued now.
https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.PENDING"


def handle(event: Event, uow: UnitOfWork) -> None:
    sale = payment.apply_sale(uow, event, "pending")
    notifications.mail_for_sale(uow, event, sale)

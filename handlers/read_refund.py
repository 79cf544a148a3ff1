"""PayPal answered a look-up of a refund: store the refund with its sale, and queue the refund receipt.

The event that requested the look-up is retried afterwards.
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event, ParkEvent

EVENT = "READ.REFUND"


def handle(event: Event, uow: UnitOfWork) -> None:
    if "sale" not in event.facts and uow.refund(event.require("refund")) is None:
        raise ParkEvent("PayPal's record of this refund names no sale")
    sale = payment.apply_refund(uow, event, None)
    notifications.mails_for_refunds(uow, event, sale)

"""PayPal's answer to our question about a refund: which sale it is of. The event that asked is tried again after it."""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event, ParkEvent

EVENT = "READ.REFUND"


def handle(event: Event, uow: UnitOfWork) -> None:
    if "sale" not in event.facts and uow.refund(event.require("refund")) is None:
        raise ParkEvent("PayPal's own record of this refund names no sale")
    sale = payment.apply_refund(uow, event, None)
    notifications.mails_for_refunds(uow, event, sale)

"""PayPal answered a look-up of a refund of a capture: store the refund. It queues no mail."""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event, ParkEvent

EVENT = "READ.CAPTURE_REFUND"


def handle(event: Event, uow: UnitOfWork) -> None:
    if "sale" not in event.facts and uow.refund(event.require("refund")) is None:
        raise ParkEvent("PayPal's record of this refund names no capture")
    payment.apply_refund(uow, event, None)

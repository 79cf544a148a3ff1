"""PayPal answered a look-up of a capture: store it as a payment without a subscription. It queues no mail."""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event, ParkEvent

EVENT = "READ.CAPTURE"

# PayPal's states of a capture (Payments v2). Refunds have their own events.
STATES: dict[str, payment.SaleStatus] = {
    "completed": "completed",
    "partially_refunded": "completed",
    "refunded": "completed",
    "pending": "pending",
    "declined": "denied",
    "failed": "denied",
}


def handle(event: Event, uow: UnitOfWork) -> None:
    state = event.require("state")
    if state not in STATES:
        raise ParkEvent(f"unknown state of a capture: {state}")
    payment.apply_sale(uow, event, STATES[state])

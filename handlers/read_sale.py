"""PayPal's answer to our question about a sale. Without an event's name, state and hold together say how it is."""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event, ParkEvent

EVENT = "READ.SALE"

# PayPal's states of a sale (Payments v1). Refunds are booked by their own events.
STATES: dict[str, payment.SaleStatus] = {
    "completed": "completed",
    "partially_refunded": "completed",
    "refunded": "completed",
    "pending": "pending",
    "denied": "denied",
}


def handle(event: Event, uow: UnitOfWork) -> None:
    state = event.require("state")
    if state not in STATES:
        raise ParkEvent(f"PayPal calls this sale {state}, which we do not know")
    held = state == "completed" and event.facts.get("held")
    sale = payment.apply_sale(uow, event, "pending" if held else STATES[state])
    notifications.mail_for_sale(uow, event, sale)

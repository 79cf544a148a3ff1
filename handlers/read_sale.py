"""PayPal answered a look-up of a sale: store it, and queue its mail.

No event name gives the status here; the sale's state and its hold together decide it. PayPal may also not know the sale.
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event, ParkEvent
from pipeline.inbox.parsing import NOT_FOUND

EVENT = "READ.SALE"

# PayPal's states of a sale (Payments v1). Refunds have their own events.
STATES: dict[str, payment.SaleStatus] = {
    "completed": "completed",
    "partially_refunded": "completed",
    "refunded": "completed",
    "pending": "pending",
    "denied": "denied",
}


def handle(event: Event, uow: UnitOfWork) -> None:
    state = event.require("state")
    if state == NOT_FOUND:
        payment.apply_missing_sale(uow, event)
        return
    if state not in STATES:
        raise ParkEvent(f"unknown state of a sale: {state}")
    held = state == "completed" and event.facts.get("held")
    sale = payment.apply_sale(uow, event, "pending" if held else STATES[state])
    notifications.mail_for_sale(uow, event, sale)

"""Invoices that the vendor sent with PayPal. The money of an invoice is in its payments, which have their own events.

So an invoice's event only makes sure that its payments and refunds are stored; docs/decisions explains why. Its facts keep
the total, tax, paid, refunded and due amount.
"""

from datetime import timedelta

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

LOOKUP_DELAY = timedelta(hours=1)  # the payment's own event has usually arrived by then


def look_up_payments(uow: UnitOfWork, event: Event) -> None:
    """Request a look-up of each payment and refund that the invoice names. Raises ParkEvent if it has no id itself."""
    event.require("invoice")
    if not uow.may_read:
        return
    for id in event.facts.get("transactions", ()):
        uow.request_lookup("sale", id, LOOKUP_DELAY)
    for id in event.facts.get("refunds", ()):
        uow.request_lookup("refund", id, LOOKUP_DELAY)

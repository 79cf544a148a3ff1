"""Invoices that the vendor sent with PayPal. The money of an invoice is in its payments, which have their own events.

So an invoice's event only makes sure that its payments are stored. Its facts keep the total, paid and refunded amount.
"""

from datetime import timedelta

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

LOOKUP_DELAY = timedelta(hours=1)  # the payment's own event has usually arrived by then


def look_up_payments(uow: UnitOfWork, event: Event) -> None:
    """Request a look-up of each payment that the invoice names. Raises ParkEvent if the event has no id of an invoice."""
    event.require("invoice")
    for id in event.facts.get("transactions", ()) if uow.may_read else ():
        uow.request_lookup("sale", id, LOOKUP_DELAY)

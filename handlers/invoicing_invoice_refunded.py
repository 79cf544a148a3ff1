"""An invoice was refunded: look up its payment and its refund, which have their own events.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import invoices
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "INVOICING.INVOICE.REFUNDED"


def handle(event: Event, uow: UnitOfWork) -> None:
    invoices.look_up_payments(uow, event)

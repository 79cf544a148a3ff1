"""The vendor refunded a capture, in part or in full: store the refund.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.CAPTURE.REFUNDED"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_refund(uow, event, "refund")

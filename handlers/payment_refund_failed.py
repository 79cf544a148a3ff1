"""A refund of a capture failed: store that, so that the payment counts again.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.REFUND.FAILED"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_refund(uow, event, "refund")

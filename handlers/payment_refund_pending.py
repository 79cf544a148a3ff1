"""A refund of a capture is pending: store it. It pays nothing back yet.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.REFUND.PENDING"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_refund(uow, event, "refund")

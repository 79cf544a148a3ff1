"""PayPal took a captured payment back: store the reversal.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.CAPTURE.REVERSED"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_refund(uow, event, "reversal")

"""A one-off payment was captured: store it as a payment without a subscription. It queues no mail.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.CAPTURE.COMPLETED"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_sale(uow, event, "completed")

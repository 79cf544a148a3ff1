"""A capture was declined: store the refusal. It queues no mail.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.CAPTURE.DECLINED"


def handle(event: Event, uow: UnitOfWork) -> None:
    payment.apply_sale(uow, event, "denied")

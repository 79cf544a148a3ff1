"""A buyer disputes a payment: store the dispute, and mail the operator the deadline.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import disputes
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "CUSTOMER.DISPUTE.CREATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    dispute = disputes.apply_event(uow, event)
    disputes.mail_operator(uow, dispute)

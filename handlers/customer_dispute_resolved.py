"""A dispute has ended: store the outcome, look up the money that PayPal returned, and mail the operator.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import disputes
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "CUSTOMER.DISPUTE.RESOLVED"


def handle(event: Event, uow: UnitOfWork) -> None:
    dispute = disputes.apply_event(uow, event)
    disputes.mail_operator(uow, dispute)

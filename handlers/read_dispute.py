"""PayPal answered a look-up of a dispute: store it, and mail the operator a new deadline or the outcome."""

from pipeline.billing import disputes
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "READ.DISPUTE"


def handle(event: Event, uow: UnitOfWork) -> None:
    dispute = disputes.apply_event(uow, event)
    disputes.mail_operator(uow, dispute)

"""PayPal limited an account further: mail the operator.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import account_notices
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "CUSTOMER.ACCOUNT-LIMITATION.ESCALATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    account_notices.mail_operator(uow, event)

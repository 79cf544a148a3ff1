"""A billing plan was created at PayPal: store its terms.

https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.PLAN.CREATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    subscription.apply_plan_event(uow, event)

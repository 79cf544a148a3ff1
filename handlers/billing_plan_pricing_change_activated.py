"""A billing plan has a new price: store it, and read the plan again.

The new price reaches existing subscribers for charges more than ten days away. Each reminder names it only if PayPal
reports that it charges this subscriber the new price.
https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.billing import subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "BILLING.PLAN.PRICING-CHANGE.ACTIVATED"


def handle(event: Event, uow: UnitOfWork) -> None:
    subscription.apply_plan_event(uow, event)

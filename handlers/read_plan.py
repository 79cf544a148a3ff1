"""PayPal answered a look-up of a plan: store its name, billing cycle and price, and recompute its subscriptions."""

from pipeline.billing import subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "READ.PLAN"


def handle(event: Event, uow: UnitOfWork) -> None:
    subscription.apply_plan_event(uow, event)

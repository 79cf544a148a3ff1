"""Money is on its way: an eCheck, a review, a hold. The event's name counts, not its state, which may say completed.

No mail for that; only, where it comes after the news of how it ended, and alone says whose it is, the mail for those.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event

EVENT = "PAYMENT.SALE.PENDING"


def handle(event: Event, uow: UnitOfWork) -> None:
    sale = payment.apply_sale(uow, event, "pending")
    notifications.mail_for_sale(uow, event, sale)

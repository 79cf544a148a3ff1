"""A charge attempt failed; the status stays as it is. The customer is told when PayPal tries again, and what to do.

https://developer.paypal.com/subscriptions/webhooks
"""

from pipeline.billing import notifications, subscription
from pipeline.billing.unit_of_work import Books
from pipeline.inbox.event import Event

EVENT = "BILLING.SUBSCRIPTION.PAYMENT.FAILED"


def handle(event: Event, books: Books) -> None:
    move = subscription.see(books, event)
    notifications.mail_for_status(books, event, move)
    notifications.mail_for_failed_payment(books, event)

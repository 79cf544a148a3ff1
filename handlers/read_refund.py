"""PayPal's answer to our question about a refund: which sale it is of. The event that asked is tried again after it."""

from pipeline.billing import notifications, payment
from pipeline.billing.unit_of_work import Books
from pipeline.inbox.event import Event, ParkEvent

EVENT = "READ.REFUND"


def handle(event: Event, books: Books) -> None:
    if "sale" not in event.facts and books.refund(event.need("refund")) is None:
        raise ParkEvent("PayPal's own record of this refund names no sale")
    sale = payment.apply_refund(books, event, None)
    notifications.mails_for_refunds(books, event, sale)

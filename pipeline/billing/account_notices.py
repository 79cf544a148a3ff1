"""What PayPal reports about the vendor's account, or one that is connected to its app.

Nothing changes here, but the operator must know at once: a limited account may not be able to charge or to refund.
"""

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event
from pipeline.outbox.store import NewMail


def mail_operator(uow: UnitOfWork, event: Event) -> None:
    """Queue the operator's mail, once for each event. Raises ParkEvent if the event has no time."""
    facts = {"event": event.id, "type": event.type, "at": event.require("at")}
    facts |= {name: event.facts.get(name) for name in ("account", "limitation", "reason", "status")}
    uow.add_mail(NewMail("account_notice", f"account_notice:{event.id}", None, facts))

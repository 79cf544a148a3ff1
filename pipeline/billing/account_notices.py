"""What PayPal reports about the vendor's own account. Nothing changes here, but the operator must know at once."""

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.inbox.event import Event
from pipeline.outbox.store import NewMail


def mail_operator(uow: UnitOfWork, event: Event) -> None:
    """Queue the operator's mail, once for each event. Raises ParkEvent if the event has no time."""
    event.require("at")
    facts = {"event": event.id, "type": event.type, "account": event.facts.get("account", ""), "at": event.facts["at"]}
    uow.add_mail(NewMail("account_notice", f"account_notice:{event.id}", None, facts))

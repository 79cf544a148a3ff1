"""Until when a customer has access: until `paid_through`, unless the vendor pauses access during a dispute.

Nothing is stored for the pause, so it does not depend on the order of events: it lasts while a dispute is open. After a won
one access is what was paid for. After a lost one the reversal of the payment has shortened `paid_through`.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.db.bulk import in_list
from pipeline.db.models import Dispute, Payment


def disputed_since(session: Session, subscriptions: Collection[str]) -> dict[str, datetime]:
    """Return since when payments of these subscriptions are disputed, by subscription id. Ended disputes do not count."""
    first = (
        select(Payment.subscription_id, func.min(Dispute.opened_at))
        .join(Dispute, Dispute.payment_id == Payment.id)
        .where(in_list(Payment.subscription_id, list(subscriptions)), Dispute.resolved_at.is_(None))
        .group_by(Payment.subscription_id)
    )
    return {id: since for id, since in session.execute(first) if id is not None and since is not None}


def access_until(paid_through: datetime | None, disputed: datetime | None, *, pauses: bool) -> datetime | None:
    """Return until when a subscription gives access, None if it never did. `pauses`: an open dispute ends it meanwhile."""
    if paid_through is None or disputed is None or not pauses:
        return paid_through
    return min(paid_through, disputed)

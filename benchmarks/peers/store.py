"""The usual three writes of a billing handler, in one transaction: the subscription, the payment, the mail owed."""

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import DateTime, ForeignKey, create_engine, func
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.peers.surroundings import DATABASE_URL

engine = create_engine(DATABASE_URL or "postgresql+psycopg://", pool_size=5)


class Base(DeclarativeBase):
    """The tables of this application."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: DateTime(timezone=True)}


class Subscription(Base):
    """A customer's subscription."""

    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    plan_id: Mapped[str | None]
    email: Mapped[str | None]
    name: Mapped[str | None]
    paid_count: Mapped[int] = mapped_column(default=0)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Payment(Base):
    """Money that came."""

    __tablename__ = "payments"

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), index=True)
    amount: Mapped[Decimal]
    currency: Mapped[str]
    paid_at: Mapped[datetime]


class Outbox(Base):
    """A mail that is owed, once for each event."""

    __tablename__ = "outbox"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subscription_id: Mapped[str] = mapped_column(index=True)
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]


def handle(event: dict[str, Any]) -> str:
    """Write what one event tells. The id of the mail it owes."""
    resource = event["resource"]
    is_sale = event["event_type"] == "PAYMENT.SALE.COMPLETED"
    with Session(engine) as session, session.begin():
        if is_sale:
            _see_sale(session, resource)
        else:
            _see_subscription(session, resource)
        _owe(session, event, is_sale)
    return str(event["id"])


def _see_subscription(session: Session, resource: dict[str, Any]) -> None:
    person = resource["subscriber"]
    told = {
        "status": resource["status"],
        "plan_id": resource["plan_id"],
        "email": person.get("email_address"),
        "name": f"{person['name']['given_name']} {person['name']['surname']}",
        "updated_at": func.now(),
    }
    statement = insert(Subscription).values(id=resource["id"], paid_count=0, **told)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=told))


def _see_sale(session: Session, resource: dict[str, Any]) -> None:
    id = resource["billing_agreement_id"]
    upsert = insert(Subscription).values(id=id, status="ACTIVE", paid_count=1)
    more = {"paid_count": Subscription.paid_count + 1, "updated_at": func.now()}
    session.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=more))
    payment = insert(Payment).values(
        id=resource["id"],
        subscription_id=id,
        amount=Decimal(resource["amount"]["total"]),
        currency=resource["amount"]["currency"],
        paid_at=datetime.fromisoformat(resource["create_time"]),
    )
    session.execute(payment.on_conflict_do_nothing())


def _owe(session: Session, event: dict[str, Any], is_sale: bool) -> None:
    resource = event["resource"]
    facts = {"paid_at": event["create_time"]}
    if is_sale:
        facts |= {"payment": resource["id"], "amount": "{total} {currency}".format(**resource["amount"])}
    mail = insert(Outbox).values(
        id=event["id"],
        kind="receipt" if is_sale else "account_setup",
        subscription_id=resource["billing_agreement_id"] if is_sale else resource["id"],
        facts=facts,
    )
    session.execute(mail.on_conflict_do_nothing())

"""All tables on one page. Behaviour does not live here.

Times are UTC, money is minor units beside its currency, personal columns are sealed bytes (see `keys`). A row that is
told by many events keeps in `known` the newest known value of each field with its time (see `register`), and beside it,
as columns, what those values come to.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, Text, false, text, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pipeline.db.engine import Utc


def _partial(name: str, column: str, where: str) -> Index:
    """An index of the few rows that wait for something, so that looking for them costs what waits, not what exists."""
    return Index(name, column, sqlite_where=text(where), postgresql_where=text(where))


class Base(DeclarativeBase):
    """All tables, and how Python's types are kept in them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Utc(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        bytes: LargeBinary(),
    }


class EncryptionKey(Base):
    """The key of a label, wrapped by the master key. `wrapped` is None once erased: a tombstone."""

    __tablename__ = "key"

    key_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    wrapped_key: Mapped[bytes | None]
    created_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]


class Event(Base):
    """The inbox: everything that may change the books comes through here, once."""

    __tablename__ = "event"

    id: Mapped[str] = mapped_column(String(160), primary_key=True)
    type: Mapped[str] = mapped_column(String(100))
    source: Mapped[str] = mapped_column(String(20))  # webhook, import, read
    state: Mapped[str] = mapped_column(String(10))  # received, handled, ignored, parked
    reason: Mapped[str | None] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(100))
    customer_id: Mapped[str | None] = mapped_column(String(40))  # whose it is, where its label is no subscription's
    facts: Mapped[dict[str, Any]]
    personal_data: Mapped[bytes | None]  # sealed: what the event says of the person, a small JSON object
    body: Mapped[bytes | None]  # sealed: the whole body, less card and bank fields
    body_sha256: Mapped[str] = mapped_column(String(64))  # of the raw bytes
    content_sha256: Mapped[str] = mapped_column(String(64))  # of what it says, however it is written
    signature_verdict: Mapped[str] = mapped_column(Text)  # what was found about its signature
    transmission_id: Mapped[str | None] = mapped_column(String(50), unique=True)
    occurred_at: Mapped[datetime | None]
    received_at: Mapped[datetime]
    due_at: Mapped[datetime | None]  # when a received event is to be looked at again
    attempts: Mapped[int] = mapped_column(default=0)
    done_at: Mapped[datetime | None]  # when it was handled, ignored or parked

    __table_args__ = (
        _partial("event_due", "due_at", "state = 'received'"),
        _partial("event_parked", "done_at", "state = 'parked'"),
        Index("event_received_at", "received_at"),
        Index("event_label", "label"),
        _partial("event_customer", "customer_id", "customer_id IS NOT NULL"),
    )


class Redelivery(Base):
    """Transmissions of events we already had, so that none of their signatures serves for another body."""

    __tablename__ = "redelivery"

    transmission_id: Mapped[str] = mapped_column(String(50), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(160))
    body_sha256: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime]


class Customer(Base):
    """Who `custom_id` names, else PayPal's payer id; the id is a keyed hash of either. Never merged by e-mail.

    The id is also the label of the customer's own key. What stands here was told by the customer, at sign-up or as a
    correction, and outranks what PayPal tells.
    """

    __tablename__ = "customer"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[datetime]
    personal_data: Mapped[
        bytes | None
    ]  # sealed: name, email, company, phone, custom (what PayPal is given as custom_id)
    email_hash: Mapped[bytes | None] = mapped_column(index=True)
    signed_up_at: Mapped[datetime | None]
    adult_confirmed_at: Mapped[datetime | None]  # when they said that they are 18 or older
    adult_text_version: Mapped[str | None] = mapped_column(String(20))  # the version of the sentence they said it with
    wants_marketing: Mapped[bool] = mapped_column(default=False, server_default=false())  # opted in
    wants_service_mail: Mapped[bool] = mapped_column(default=True, server_default=true())  # not opted out
    erase_at: Mapped[datetime | None] = mapped_column(index=True)  # deletion was asked for, and happens then
    erased_at: Mapped[datetime | None]


class Plan(Base):
    """How often and how much, as PayPal tells it. For old agreements the id is that of the agreement."""

    __tablename__ = "plan"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    name: Mapped[str | None] = mapped_column(String(127))
    interval_unit: Mapped[str | None] = mapped_column(String(5))  # DAY, WEEK, MONTH, YEAR
    interval_count: Mapped[int | None]
    amount: Mapped[int | None] = mapped_column(BigInteger)  # of one regular cycle, for a quantity of one
    currency: Mapped[str | None] = mapped_column(String(3))


class Subscription(Base):
    """A customer's subscription. A row without status is a placeholder: money came before the first word of it."""

    __tablename__ = "subscription"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customer.id"), index=True)
    personal_data: Mapped[bytes | None]  # sealed: name, e-mail and so on, each with its time
    email_hash: Mapped[bytes | None] = mapped_column(index=True)
    status: Mapped[str | None] = mapped_column(String(20))
    status_at: Mapped[datetime | None]
    plan_id: Mapped[str | None] = mapped_column(String(50), index=True)
    next_billing_at: Mapped[datetime | None]
    paid_through: Mapped[datetime | None]
    remind_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    __table_args__ = (_partial("subscription_remind", "remind_at", "remind_at IS NOT NULL"),)


CAME = ("completed", "partially_refunded", "refunded", "reversed")  # statuses of a payment whose money came


class Payment(Base):
    """One sale: money that came, or is to come. A row without status is a placeholder for a refund that came first."""

    __tablename__ = "payment"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    subscription_id: Mapped[str | None] = mapped_column(String(50), index=True)
    # pending, completed, denied, partially_refunded, refunded, reversed
    status: Mapped[str | None] = mapped_column(String(20))
    amount: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None] = mapped_column(String(3))
    fee: Mapped[int | None] = mapped_column(BigInteger)
    refunded: Mapped[int] = mapped_column(BigInteger, default=0)
    occurred_at: Mapped[datetime | None]


class Refund(Base):
    """Money given back for a payment, by us (refund) or by PayPal (reversal). The amount is positive."""

    __tablename__ = "refund"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    payment_id: Mapped[str] = mapped_column(String(50), index=True)
    kind: Mapped[str] = mapped_column(String(10))  # refund, reversal
    amount: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    occurred_at: Mapped[datetime]


class StatusHistoryEntry(Base):
    """One move of a subscription's status, in the order in which we learned of it."""

    __tablename__ = "change"

    id: Mapped[int] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(String(50), index=True)
    at: Mapped[datetime]
    old_status: Mapped[str | None] = mapped_column(String(20))
    new_status: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(String(100))
    event_id: Mapped[str] = mapped_column(String(160))


class PaypalLookup(Base):
    """A question to PayPal that is owed: asked outside any transaction, answered through the inbox."""

    __tablename__ = "read"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # subscription, plan, sale, refund
    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    due_at: Mapped[datetime | None] = mapped_column(index=True)  # None: PayPal does not know it
    attempts: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str | None] = mapped_column(Text)


class Mail(Base):
    """The outbox: mails owed. The id is the token from which Message-ID and envelope sender are made."""

    __tablename__ = "mail"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(String(200), unique=True)  # a mail is owed once: made of stable ids
    kind: Mapped[str] = mapped_column(String(40))
    key_id: Mapped[str] = mapped_column(String(100), index=True)
    subscription_id: Mapped[str | None] = mapped_column(String(50), index=True)
    customer_id: Mapped[str | None] = mapped_column(String(40), index=True)  # neither of the two: to the operator
    state: Mapped[str] = mapped_column(String(10))  # owed, sending, sent, doubt, failed, withheld
    reason: Mapped[str | None] = mapped_column(Text)
    facts: Mapped[bytes | None]  # sealed
    recipient: Mapped[bytes | None]  # sealed: the address it was frozen for
    frozen: Mapped[bytes | None]  # sealed: the finished bytes, from the first claim on
    message_id: Mapped[str | None] = mapped_column(String(120))
    claimed_by: Mapped[str | None] = mapped_column(String(40))  # the mailer that is sending it
    relay_reply: Mapped[str | None] = mapped_column(Text)  # what the relay answered
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None]  # None while owed: waits for an address
    claimed_at: Mapped[datetime | None]  # when it was claimed last
    sent_at: Mapped[datetime | None]

    __table_args__ = (
        _partial("mail_due", "due_at", "state = 'owed'"),
        _partial("mail_sending", "holder", "state = 'sending'"),
        _partial("mail_doubt", "tried_at", "state = 'doubt'"),
        Index("mail_created_at", "created_at"),
    )


class Consent(Base):
    """What a customer agreed to or declined, when, by what way, in which words: kept as proof."""

    __tablename__ = "consent"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(40), index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(20))  # adult, marketing, marketing_asked, service
    given: Mapped[bool]
    # sign-up, page, one-click, link by mail, account page, operator, mail
    source: Mapped[str] = mapped_column(String(40))
    text_version: Mapped[str] = mapped_column(String(20))


class PrivacyRequest(Base):
    """What a person asked for under the policy's section 6, and what became of it, by when."""

    __tablename__ = "request"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    customer_id: Mapped[str | None] = mapped_column(String(40), index=True)  # None: nobody we know, yet
    key_id: Mapped[str] = mapped_column(String(100))  # whose key seals the details
    kind: Mapped[str] = mapped_column(String(20))  # access, correct, erase, opt_out, child, other
    state: Mapped[str] = mapped_column(String(10))  # received, waiting, running, done, refused, cancelled
    source: Mapped[str] = mapped_column(String(20))  # page, mail, operator
    details: Mapped[bytes | None]  # sealed
    reason: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(index=True)
    due_at: Mapped[datetime]  # the day by which the law and the policy want an answer
    waiting_ends_at: Mapped[datetime | None]  # end of the waiting period
    done_at: Mapped[datetime | None]
    last_alarm_day: Mapped[int] = mapped_column(default=0)  # days of the last alarm: 7, 14, 21, 25

    __table_args__ = (_partial("request_open", "due_at", "done_at IS NULL"),)


class Link(Base):
    """A secret we gave somebody, in a mail or a cookie. Only its hash is kept; it serves once, or for one visit."""

    __tablename__ = "link"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(40), index=True)
    purpose: Mapped[str] = mapped_column(String(20))  # see `privacy.links`
    request_id: Mapped[str | None] = mapped_column(String(26))
    details: Mapped[bytes | None]  # sealed with the customer's key
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class RateLimitCounter(Base):
    """How often somebody knocked in an hour, so that nobody can be bombed with mails or guessed at."""

    __tablename__ = "knock"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # keyed hash of who, what and which hour
    count: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class InboundMail(Base):
    """A mail that somebody wrote to us, filed with the customer it is from."""

    __tablename__ = "letter"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # a hash: the same mail is filed once
    customer_id: Mapped[str | None] = mapped_column(String(40), index=True)
    key_id: Mapped[str] = mapped_column(String(100), index=True)
    kind: Mapped[str] = mapped_column(String(20))  # support, privacy, automatic
    request_id: Mapped[str | None] = mapped_column(String(26))  # the request it opened; None: no person wrote it
    content: Mapped[bytes | None]  # sealed: the whole mail
    received_at: Mapped[datetime] = mapped_column(index=True)


class AccessLogEntry(Base):
    """The access log of our own pages: one request. Its key is the day's, and is destroyed with the day."""

    __tablename__ = "visit"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    key_id: Mapped[str] = mapped_column(String(100))  # smt:visits:2026-03-01
    action: Mapped[str] = mapped_column(String(100))  # method and route, as `GET /privacy`: never a secret of a link
    status: Mapped[int]
    visitor: Mapped[bytes | None]  # sealed: address and browser


class ReadAudit(Base):
    """Who of us read what of whom, and why: each row holds the hash of the one before."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(60))  # the account of the machine that called
    action: Mapped[str] = mapped_column(String(60))  # the command
    purpose: Mapped[str] = mapped_column(String(200))
    subject: Mapped[str | None] = mapped_column(String(100))  # a label or id, never a name
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class RetentionRun(Base):
    """One run of the retention sweep: what was due, and what was done about it."""

    __tablename__ = "sweep"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    counts: Mapped[dict[str, Any]]  # rule -> rows


class Erasure(Base):
    """Proof that a person was erased; played again after a restore. Names nobody."""

    __tablename__ = "erasure"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(40), index=True)
    key_ids: Mapped[list[str]]  # whose keys were destroyed
    at: Mapped[datetime] = mapped_column(index=True)
    receipt: Mapped[dict[str, Any]]  # keys and rows that went, what stays and on what basis
    master_key_id: Mapped[str] = mapped_column(String(16))  # the master key that had wrapped the destroyed keys
    completed_at: Mapped[datetime | None]  # when that master key had been replaced and destroyed


class Policy(Base):
    """One text of the privacy policy, as it was or will be in force."""

    __tablename__ = "policy"

    id: Mapped[str] = mapped_column(String(20), primary_key=True)  # the day it takes effect
    text: Mapped[str] = mapped_column(Text)
    material: Mapped[bool]
    proposed_at: Mapped[datetime]
    effective_at: Mapped[datetime] = mapped_column(index=True)
    withdrawn_at: Mapped[datetime | None]

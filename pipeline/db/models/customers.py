"""The tables of customers: accounts, consents, links, and rate limits."""

from datetime import datetime

from sqlalchemy import String, false, true
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base


class Customer(Base):
    """A customer with the data that they entered. It takes precedence over PayPal's data.

    The id is a keyed hash of `custom_id`, of PayPal's payer id, or of both, see `customers.identity`. It is also the key
    id of the customer's data.
    """

    __tablename__ = "customer"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[datetime]
    # encrypted last-writer-wins map: name, email (confirmed), entered_email (not confirmed), new_email (a requested
    # change), company, phone, custom (the custom_id sent to PayPal)
    personal_data: Mapped[bytes | None]
    email_hash: Mapped[bytes | None] = mapped_column(index=True)  # of the confirmed address
    signed_up_at: Mapped[datetime | None]
    adult_confirmed_at: Mapped[datetime | None]  # when they confirmed that they are 18 or older
    adult_text_version: Mapped[str | None] = mapped_column(String(20))  # the version of the sentence they confirmed
    wants_marketing: Mapped[bool] = mapped_column(default=False, server_default=false())  # opted in
    wants_service_mail: Mapped[bool] = mapped_column(default=True, server_default=true())  # not opted out
    erase_at: Mapped[datetime | None] = mapped_column(index=True)  # when a requested deletion takes place
    erased_at: Mapped[datetime | None]
    payer_ref: Mapped[str | None] = mapped_column(String(40))  # the first PayPal account that paid under this custom_id
    merged_into: Mapped[str | None] = mapped_column(String(40), index=True)  # the earlier account of the same person
    email_change_at: Mapped[datetime | None] = mapped_column(index=True)  # when a requested address takes effect


class Consent(Base):
    """A choice of a customer with its time, source and wording, stored as proof."""

    __tablename__ = "consent"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(40), index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(20))  # adult, marketing, marketing_asked, service
    given: Mapped[bool]
    # sign-up, page, one-click, link by mail, account page, operator, mail
    source: Mapped[str] = mapped_column(String(40))
    text_version: Mapped[str] = mapped_column(String(20))


class Link(Base):
    """A secret sent to a customer in a mail (single use) or in a cookie (one session). Only its hash is stored."""

    __tablename__ = "link"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(40), index=True)
    purpose: Mapped[str] = mapped_column(String(20))  # see `customers.links`
    request_id: Mapped[str | None] = mapped_column(String(26))
    details: Mapped[bytes | None]  # encrypted with the customer's key
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class RateLimitCounter(Base):
    """The number of attempts of one kind by one client in one hour."""

    __tablename__ = "rate_limit_counter"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # keyed hash of limit, client and hour
    count: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(index=True)

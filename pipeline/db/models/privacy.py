"""The tables of privacy: requests, inbound mail, access log, audit log, erasures, retention, and policy texts."""

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base, partial_index


class PrivacyRequest(Base):
    """A request of a person under section 6 of the policy, with its deadline and its result."""

    __tablename__ = "privacy_request"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    customer_id: Mapped[str | None] = mapped_column(String(40), index=True)  # None: not a known customer
    key_id: Mapped[str] = mapped_column(String(100))  # the key that encrypts `details`
    kind: Mapped[str] = mapped_column(String(20))  # access, correct, erase, opt_out, child, other
    state: Mapped[str] = mapped_column(String(10))  # received, waiting, running, done, refused, cancelled
    source: Mapped[str] = mapped_column(String(20))  # page, mail, operator
    details: Mapped[bytes | None]  # encrypted
    reason: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(index=True)
    due_at: Mapped[datetime]  # the deadline of law and policy
    waiting_ends_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    last_alarm_day: Mapped[int] = mapped_column(default=0)  # days after `received_at`: 7, 14, 21, 25

    __table_args__ = (partial_index("ix_privacy_request_open", "due_at", "done_at IS NULL"),)


class InboundMail(Base):
    """A received mail, filed with the customer who sent it."""

    __tablename__ = "inbound_mail"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # hash of the mail, so that it is filed only once
    customer_id: Mapped[str | None] = mapped_column(String(40), index=True)
    key_id: Mapped[str] = mapped_column(String(100), index=True)
    kind: Mapped[str] = mapped_column(String(20))  # support, privacy, automatic
    request_id: Mapped[str | None] = mapped_column(String(26))  # the request it opened; None: no person wrote it
    content: Mapped[bytes | None]  # encrypted: the whole mail
    received_at: Mapped[datetime] = mapped_column(index=True)
    answered_at: Mapped[datetime | None]  # the last reply of the operator


class AccessLogEntry(Base):
    """One request to the web pages. All entries of a day share a key, which is destroyed with them."""

    __tablename__ = "access_log"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    key_id: Mapped[str] = mapped_column(String(100))  # visits:2026-03-01
    action: Mapped[str] = mapped_column(String(100))  # method and route (`GET /privacy`), never the secret of a link
    status: Mapped[int]
    visitor: Mapped[bytes | None]  # encrypted: address and browser


class ReadAudit(Base):
    """One access of an operator to personal data, with its purpose. Each row contains the hash of the row before it."""

    __tablename__ = "read_audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(60))  # the operating system's account that ran the command
    action: Mapped[str] = mapped_column(String(60))  # the command
    purpose: Mapped[str] = mapped_column(String(200))
    subject: Mapped[str | None] = mapped_column(String(100))  # a key id or another id, never a name
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class RetentionRun(Base):
    """One run of the retention rules."""

    __tablename__ = "retention_run"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    counts: Mapped[dict[str, Any]]  # rule -> rows


class Erasure(Base):
    """The proof of one erasure, without personal data. A restore repeats the erasure."""

    __tablename__ = "erasure"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(40), index=True)
    key_ids: Mapped[list[str]]  # the destroyed keys
    at: Mapped[datetime] = mapped_column(index=True)
    receipt: Mapped[dict[str, Any]]  # destroyed keys, deleted rows, and the legal basis of each kept row
    master_key_id: Mapped[str] = mapped_column(String(16))  # the master key that had wrapped the destroyed keys
    completed_at: Mapped[datetime | None]  # when that master key was replaced and destroyed


class Policy(Base):
    """One version of the privacy policy."""

    __tablename__ = "policy"

    id: Mapped[str] = mapped_column(String(20), primary_key=True)  # the day it takes effect
    text: Mapped[str] = mapped_column(Text)
    material: Mapped[bool]
    proposed_at: Mapped[datetime]
    effective_at: Mapped[datetime] = mapped_column(index=True)
    withdrawn_at: Mapped[datetime | None]

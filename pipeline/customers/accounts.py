"""Customers as people: who they are, what belongs to them, what they agreed to.

What a customer told us at sign-up or as a correction outranks what PayPal tells of them, field by field, whatever comes
later. Nobody is merged by e-mail: one address may belong to several customers.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from sqlalchemy import ColumnElement, exists, or_, select, union, update
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db import lww_map
from pipeline.db.models import Consent, Customer, Event, Mail, Payment, Refund, Subscription
from pipeline.email_address import clean_name, strip_controls, valid_address
from pipeline.errors import UsageError
from pipeline.outbox import store as outbox

Field = Literal["name", "email", "company", "phone"]
FIELDS: tuple[Field, ...] = ("name", "email", "company", "phone")
ConsentKind = Literal["adult", "marketing", "marketing_asked", "service"]
CHOICES = {"marketing": Customer.wants_marketing, "service": Customer.wants_service_mail}  # kinds a customer can change
LONGEST = {"name": 100, "email": 254, "company": 100, "phone": 40}  # characters
REFUNDS = ("PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED", "READ.REFUND")
CUSTOM = "custom"  # the field that holds what PayPal is given as custom_id


class InvalidFieldError(UsageError, ValueError):
    """What a person gave cannot be kept. Names the field and says what to write; never quotes the value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class CustomerNotFoundError(UsageError):
    """There is no customer of this id, or they have been erased."""


@dataclass(frozen=True, slots=True)
class SignUpData:
    """What sign-up asks for, and no more."""

    name: str
    email: str
    company: str = ""
    phone: str = ""


def create_account(
    session: Session,
    keyring: Keyring,
    person: SignUpData,
    *,
    adult_text: str,
    news: bool,
    now: datetime,
    source: str,
    custom: str | None = None,
) -> str:
    """Make the account of somebody who has said that they are an adult; the customer's id.

    `adult_text` is the version of the sentence they agreed to; no date of birth is kept. `custom` is what PayPal is to be
    given as custom_id, made up unless given: the same one makes the same account once. Whether they ticked the `news` is
    noted; nobody is sent any before the address has confirmed it, see `privacy.news`. Raises BadField.
    """
    custom = custom or secrets.token_hex(16)
    id = customer_id(keyring, custom)
    if session.get(Customer, id) is not None:
        return id
    given = {"name": person.name, "email": person.email, "company": person.company, "phone": person.phone}
    values = {
        field: validate_field(field, given[field]) for field in FIELDS if given[field] or field in ("name", "email")
    }
    known = lww_map.merge({}, now, values | {CUSTOM: custom})
    row = Customer(
        id=id,
        created_at=now,
        signed_up_at=now,
        adult_confirmed_at=now,
        adult_text_version=adult_text,
        wants_marketing=False,
        wants_service_mail=True,
    )
    _seal(keyring, row, known)
    session.add(row)
    session.flush()
    record_consent(session, id, "adult", given=True, source=source, text_version=adult_text, now=now)
    kind: ConsentKind = "marketing_asked" if news else "marketing"
    record_consent(session, id, kind, given=news, source=source, text_version=adult_text, now=now)
    return id


class PersonalDataRow(Protocol):
    """A row of `customer` or `subscription`, or a part of it."""

    @property
    def id(self) -> str: ...
    @property
    def personal_data(self) -> bytes | None: ...


def customer_id(keyring: Keyring, custom: str) -> str:
    """The id of the customer whom PayPal is told by this custom_id."""
    return f"c{keyring.digest(INDEX, f'custom_ref:{custom}').hex()[:30]}"


def personal_data(session: Session, keyring: Keyring, customer_id: str) -> dict[str, str]:
    """name, email, company, phone, custom, as far as they are known; {} if nothing is, or they have been erased."""
    row = session.get(Customer, customer_id)
    told = reported_by_paypal(session, keyring, customer_id)
    return told | (self_reported(keyring, row) if row else {})


def self_reported(keyring: Keyring, row: PersonalDataRow) -> dict[str, str]:
    """What the customer told us, or had corrected."""
    known = _known(keyring, row)
    return {field: lww_map.value(known, field) for field in known}


def subscriber_details(keyring: Keyring, row: PersonalDataRow) -> dict[str, str]:
    """What PayPal told of the subscriber of this subscription, in our words."""
    return _in_our_words(_subscriber(keyring, row))


def reported_by_paypal(session: Session, keyring: Keyring, customer_id: str) -> dict[str, str]:
    """The newest of what PayPal told of this customer, in our words."""
    rows = subscriptions_of(session, customer_id)
    keyring.load([row.id for row in rows], create=False)
    known: lww_map.LwwMap = {}
    for row in rows:
        for field, (at, value) in _subscriber(keyring, row).items():
            known = lww_map.merge(known, datetime.fromisoformat(at), {field: value})
    return _in_our_words(known)


def find_by_email(session: Session, keyring: Keyring, email: str) -> list[str]:
    """Customers with this address, by their own word or PayPal's; who has subscribed first, then the newest.

    Anyone can sign up with another's address, but PayPal approves no subscription for that: such accounts come last.
    Erased ones are not found. An address of PayPal's that was corrected finds nobody: it may be somebody else's.
    """
    digest = keyring.email_hash(email)
    theirs = select(Subscription.customer_id).where(Subscription.email_hash == digest)
    named = or_(Customer.email_hash == digest, Customer.id.in_(theirs))
    subscribed = exists().where(Subscription.customer_id == Customer.id, Subscription.status != "APPROVAL_PENDING")
    found = select(Customer).where(named, Customer.erased_at.is_(None))
    rows = session.execute(found.order_by(subscribed.desc(), Customer.created_at.desc(), Customer.id)).scalars()
    return [row.id for row in rows if row.email_hash == digest or not _is_corrected(keyring, row, "email")]


def subscriptions_of(session: Session, customer_id: str) -> list[Subscription]:
    """The customer's subscriptions, the oldest first."""
    theirs = select(Subscription).where(Subscription.customer_id == customer_id)
    return list(session.execute(theirs.order_by(Subscription.created_at, Subscription.id)).scalars())


def has_address(session: Session, customer_id: str | None) -> bool:
    """Whether the customer has told us an address. Locked against change, so that a mail cannot begin to wait for one
    that comes meanwhile."""
    told = select(Customer.email_hash).where(Customer.id == customer_id).with_for_update(read=True)
    return session.execute(told).scalar_one_or_none() is not None


def key_ids_of(session: Session, customer_id: str) -> list[str]:
    """Every label whose key seals something of this person, the customer's id first.

    Beside it: their subscriptions; their sales, for word of one may come without its subscription; and events that
    belong to no subscription but name the customer, by the PayPal account of their subscriptions too.
    """
    rows = subscriptions_of(session, customer_id)
    loose = select(Event.key_id).where(_belongs(customer_id, _payers(session, rows)))
    theirs = select(Payment.id).where(Payment.subscription_id.in_([row.id for row in rows]))
    refunds = select(Refund.id).where(Refund.payment_id.in_(theirs))
    told = Event.facts["refund"].as_string()  # of refunds that did not say of which sale: few, and looked for rarely
    unnamed = select(Event.key_id).where(Event.key_id == Event.id, Event.type.in_(REFUNDS), told.in_(refunds))
    found = session.execute(union(loose, unnamed, theirs)).scalars()
    return list(dict.fromkeys([customer_id, *(row.id for row in rows), *sorted(found)]))


def correct_field(
    session: Session, keyring: Keyring, customer_id: str, field: Field, value: str, now: datetime
) -> str | None:
    """Keep what the customer says is right; it outranks PayPal from now on. The value that was known before.

    Reaches every mail that has not gone out yet. A new e-mail address is told to the old one and to the new one.
    Raises NoSuchCustomer and BadField.
    """
    row = require_customer(session, customer_id)
    new, old = validate_field(field, value), personal_data(session, keyring, customer_id).get(field)
    others = {name: entry for name, entry in _known(keyring, row).items() if name != field}
    _seal(keyring, row, lww_map.merge(others, now, {field: new}))
    session.flush()
    if new != old:
        _rerender_pending_mail(session, key_ids_of(session, customer_id), now)
    if new != old and field == "email":
        outbox.enqueue(session, keyring, _email_changed(customer_id, old, new, now), now)
    return old


def require_customer(session: Session, customer_id: str, *, lock: bool = True) -> Customer:
    """The customer, locked unless it is only read. Raises NoSuchCustomer for one who is not known, or erased."""
    row = session.get(Customer, customer_id, with_for_update=lock, populate_existing=lock)
    if row is None or row.erased_at:
        raise CustomerNotFoundError(f"there is no customer {customer_id}; see: smt-billing customers list")
    return row


def record_consent(
    session: Session, customer_id: str, kind: ConsentKind, *, given: bool, source: str, text_version: str, now: datetime
) -> None:
    """Note what a customer agreed to or declined, as proof, and act by it from now on."""
    session.add(
        Consent(customer_id=customer_id, at=now, kind=kind, given=given, source=source, text_version=text_version)
    )
    if column := CHOICES.get(kind):
        session.execute(update(Customer).where(Customer.id == customer_id).values({column: given}))
    session.flush()


def validate_field(field: Field, value: str) -> str:
    """What a person gave, fit to be kept: one line, no controls. Raises BadField."""
    text = " ".join(strip_controls(value).split())
    if len(text) > LONGEST[field]:
        raise InvalidFieldError(field, f"Please keep it below {LONGEST[field] + 1} characters.")
    if field == "email":
        if not valid_address(text):
            raise InvalidFieldError(field, "Please give an e-mail address such as ada@example.com.")
        return text
    if field == "name" and not clean_name(text):
        raise InvalidFieldError(field, "Please give your name.")
    if field == "phone" and text and not set(text) <= set("+0123456789 ()-./"):
        raise InvalidFieldError(field, "Please give a phone number such as +1 555 0100.")
    return text


def _belongs(customer_id: str, payers: Sequence[str]) -> ColumnElement[bool]:
    """Events of no subscription that name the customer; or their PayPal account, and nobody else we know."""
    by_payer = Event.facts["payer_ref"].as_string().in_(payers)
    nobodys = Event.customer_id.is_not(None) & Event.customer_id.not_in(select(Customer.id))
    return or_(Event.customer_id == customer_id, nobodys & by_payer)


def _payers(session: Session, rows: Sequence[Subscription]) -> list[str]:
    """The PayPal accounts that pay these subscriptions, as keyed hashes; not one that is a customer of its own."""
    payers = {str(lww_map.value(row.known, "payer_ref")) for row in rows if "payer_ref" in row.known}
    others = set(session.execute(select(Customer.id).where(Customer.id.in_(payers))).scalars()) if payers else set()
    return sorted(payers - others)


def _is_corrected(keyring: Keyring, row: Customer, field: Field) -> bool:
    """Whether the customer told this field otherwise than at sign-up."""
    told_at = lww_map.updated_at(_known(keyring, row), field)
    return told_at is not None and told_at != row.signed_up_at


def _subscriber(keyring: Keyring, row: PersonalDataRow) -> lww_map.LwwMap:
    if row.personal_data is None:  # nothing to open, so no key is looked for
        return {}
    seal = keyring.load([row.id], create=False).get(row.id)
    return (seal.decrypt_json("subscription.personal_data", row.personal_data) if seal else None) or {}


def _in_our_words(known: lww_map.LwwMap) -> dict[str, str]:
    """PayPal's two names made one; the other fields as they are."""
    found = {field: lww_map.value(known, field) for field in known}
    names = [name for name in (found.pop("given_name", ""), found.pop("surname", "")) if name]
    return {"name": " ".join(names), **found} if names else found


def _known(keyring: Keyring, row: PersonalDataRow) -> dict[str, Any]:
    if row.personal_data is None:  # nothing to open, so no key is looked for
        return {}
    seal = keyring.load([row.id], create=False).get(row.id)
    return (seal.decrypt_json("customer.personal_data", row.personal_data) if seal else None) or {}


def _seal(keyring: Keyring, row: Customer, known: lww_map.LwwMap) -> None:
    seal, email = keyring.get(row.id), lww_map.value(known, "email")
    if seal is None:
        raise CustomerNotFoundError(f"the customer {row.id} has been erased")
    row.personal_data = seal.encrypt_json("customer.personal_data", known)
    row.email_hash = keyring.email_hash(email) if email else None


def _rerender_pending_mail(session: Session, labels: Sequence[str], now: datetime) -> None:
    """Mails that are frozen but wait for another try are written anew, and those that waited for an address are due."""
    waiting = (
        update(Mail).where(Mail.key_id.in_(labels), Mail.state == "queued").execution_options(synchronize_session=False)
    )
    session.execute(waiting.values(frozen=None, recipient=None))
    session.execute(waiting.where(Mail.due_at.is_(None)).values(due_at=now))


def _email_changed(customer_id: str, old: str | None, new: str, now: datetime) -> list[outbox.NewMail]:
    """To the old address too: its owner learns of it if it was not them."""
    return [
        outbox.NewMail(
            "email_changed", f"email_changed:{customer_id}:{format_time(now)}:{which}", None,
            {"changed_at": format_time(now), "is_old": which == "old"}, customer_id=customer_id, to=address,
        )
        for which, address in (("new", new), ("old", old)) if address
    ]  # fmt: skip

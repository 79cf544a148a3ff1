"""Customer accounts: creation, personal data, corrections, consent, and the key ids that belong to a customer.

Data that customers enter at sign-up or correct takes precedence over PayPal's data, field by field, whatever PayPal
sends later. An address that a customer entered counts only after it is confirmed, see `customers.addresses`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from sqlalchemy import ColumnElement, or_, select, union, update
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.key_ids import EVENT, SALE
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db import lww_map
from pipeline.db.bulk import in_list
from pipeline.db.models import Consent, Customer, Event, Mail, Payment, Refund, Subscription
from pipeline.email_address import clean_name, strip_controls, valid_address
from pipeline.errors import UsageError
from pipeline.outbox import store as outbox

Field = Literal["name", "email", "company", "phone"]
FIELDS: tuple[Field, ...] = ("name", "email", "company", "phone")
ConsentKind = Literal["adult", "marketing", "marketing_asked", "service"]
CHOICES = {"marketing": Customer.wants_marketing, "service": Customer.wants_service_mail}  # kinds a customer can change
MAX_CHARACTERS = {"name": 100, "email": 254, "company": 100, "phone": 40}
REFUNDS = ("PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED", "READ.REFUND")
CUSTOM = "custom"  # the field that holds the custom_id sent to PayPal
ENTERED = "entered_email"  # the field that holds the address from sign-up until it is confirmed
REQUESTED = "new_email"  # the field that holds the address of a requested change


class InvalidFieldError(UsageError, ValueError):
    """The value of a field is invalid. The message says what to enter and never quotes the value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class CustomerNotFoundError(UsageError):
    """No customer has this id, or the customer has been erased."""


@dataclass(frozen=True, slots=True)
class SignUpData:
    """The personal data that sign-up asks for."""

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
    """Create the account of a person who has confirmed to be an adult, and return the customer's id.

    `adult_text` is the version of the confirmed sentence; no date of birth is stored. `custom` is the custom_id for
    PayPal (default: random); an existing account with the same `custom` is returned unchanged. `news` records that the
    newsletter was requested; it is sent only after confirmation, see `customers.newsletter`. Raises InvalidFieldError.
    """
    custom = custom or secrets.token_hex(16)
    id = customer_id(keyring, custom)
    if session.get(Customer, id) is not None:
        return id
    entered = {"name": person.name, "email": person.email, "company": person.company, "phone": person.phone}
    values: dict[str, str] = {
        field: validate_field(field, entered[field]) for field in FIELDS if entered[field] or field in ("name", "email")
    }
    values[ENTERED] = values.pop("email")
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
    _encrypt(keyring, row, known)
    session.add(row)
    session.flush()
    record_consent(session, id, "adult", given=True, source=source, text_version=adult_text, now=now)
    kind: ConsentKind = "marketing_asked" if news else "marketing"
    record_consent(session, id, kind, given=news, source=source, text_version=adult_text, now=now)
    return id


class PersonalDataRow(Protocol):
    """A row of `customer` or `subscription`, or some of its columns."""

    @property
    def id(self) -> str: ...
    @property
    def personal_data(self) -> bytes | None: ...


def customer_id(keyring: Keyring, custom: str) -> str:
    """Return the id of the customer with this custom_id: a keyed hash of it."""
    return f"c{keyring.digest(INDEX, f'custom_ref:{custom}').hex()[:30]}"


def personal_data(session: Session, keyring: Keyring, customer_id: str) -> dict[str, str]:
    """Return the known fields: name, email, company, phone, custom, payer; {} if none is known or the customer is erased.

    `entered_email` and `new_email` are addresses that are not confirmed.
    """
    row = session.get(Customer, customer_id)
    reported = reported_by_paypal(session, keyring, customer_id)
    return reported | (self_reported(keyring, row) if row else {})


def self_reported(keyring: Keyring, row: PersonalDataRow) -> dict[str, str]:
    """Return the fields that the customer entered at sign-up or corrected."""
    known = _known(keyring, row)
    return {field: lww_map.value(known, field) for field in known}


def subscriber_details(keyring: Keyring, row: PersonalDataRow) -> dict[str, str]:
    """Return PayPal's data about the subscriber of this subscription, under our field names."""
    return _with_full_name(_subscriber(keyring, row))


def reported_by_paypal(session: Session, keyring: Keyring, customer_id: str) -> dict[str, str]:
    """Return the newest value of each field that PayPal reported about this customer, under our field names."""
    return reported_by_subscriptions(keyring, subscriptions_of(session, customer_id))


def reported_by_subscriptions(keyring: Keyring, rows: Sequence[Subscription]) -> dict[str, str]:
    """Return the newest value of each field that PayPal reported for these subscriptions, under our field names."""
    keyring.load([row.id for row in rows], create=False)
    known: lww_map.LwwMap = {}
    for row in rows:
        for field, (at, value) in _subscriber(keyring, row).items():
            known = lww_map.merge(known, datetime.fromisoformat(at), {field: value})
    return _with_full_name(known)


def find_by_email(session: Session, keyring: Keyring, email: str) -> list[str]:
    """Return the ids of customers with this address, the newest first: confirmed, or from PayPal if none is confirmed.

    Addresses that only a sign-up or a pending subscription names match no one. Erased customers are not found.
    """
    digest = keyring.email_hash(email)
    by_subscription = select(Subscription.customer_id).where(Subscription.email_hash == digest)
    reported = Customer.email_hash.is_(None) & Customer.id.in_(by_subscription)
    found = select(Customer.id).where(
        or_(Customer.email_hash == digest, reported), Customer.erased_at.is_(None), Customer.merged_into.is_(None)
    )
    return list(session.execute(found.order_by(Customer.created_at.desc(), Customer.id)).scalars())


def subscriptions_of(session: Session, customer_id: str) -> list[Subscription]:
    """Return the customer's subscriptions, oldest first."""
    owned = select(Subscription).where(Subscription.customer_id == customer_id)
    return list(session.execute(owned.order_by(Subscription.created_at, Subscription.id)).scalars())


def has_address(session: Session, customer_id: str | None) -> bool:
    """Return whether the customer has a confirmed address.

    Locks the row, so an address entered at the same time cannot miss a mail that starts to wait for one.
    """
    entered = select(Customer.email_hash).where(Customer.id == customer_id).with_for_update(read=True)
    return session.execute(entered).scalar_one_or_none() is not None


def key_ids_of(session: Session, customer_id: str) -> list[str]:
    """Return every key id under which data of this customer is encrypted, the customer's id first.

    The others are: accounts merged into this one; their subscriptions; their sales, because a sale may be reported
    without its subscription; and events without a subscription that name the customer or their PayPal account.
    """
    rows = subscriptions_of(session, customer_id)
    merged = list(session.execute(select(Customer.id).where(Customer.merged_into == customer_id)).scalars())
    without_subscription = select(Event.key_id).where(_belongs(session, [customer_id, *merged], rows))
    sales = select(Payment.id).where(Payment.subscription_id.in_([row.id for row in rows]))
    refunds = select(Refund.id).where(Refund.payment_id.in_(sales))
    refund_id = Event.facts["refund"].as_string()  # not indexed: refund events without a sale are few
    without_sale = select(Event.key_id).where(
        Event.key_id == EVENT + Event.id, Event.type.in_(REFUNDS), refund_id.in_(refunds)
    )
    found = set(session.execute(union(without_subscription, without_sale)).scalars())
    found = found - _sales_of_others(session, rows, found) | {f"{SALE}{id}" for id in session.execute(sales).scalars()}
    return list(dict.fromkeys([customer_id, *merged, *(row.id for row in rows), *sorted(found)]))


def correct_field(
    session: Session, keyring: Keyring, customer_id: str, field: Field, value: str, now: datetime
) -> str | None:
    """Store the customer's corrected value and return the value known before. From now on it overrides PayPal's value.

    Queued mail uses the new value. An e-mail address counts as confirmed from now on, and its change is reported to the
    old and the new address. Raises CustomerNotFoundError and InvalidFieldError.
    """
    row = require_customer(session, customer_id)
    new, old = validate_field(field, value), personal_data(session, keyring, customer_id).get(field)
    _store_fields(keyring, row, {field: new}, now, drop=(ENTERED, REQUESTED) if field == "email" else ())
    row.email_change_at = None if field == "email" else row.email_change_at
    session.flush()
    if new != old:
        _rerender_pending_mail(session, key_ids_of(session, customer_id), now)
    if old and new != old and field == "email":
        outbox.enqueue(session, keyring, _email_changed(customer_id, old, new, now), now)
    return old


def confirm_entered_address(session: Session, keyring: Keyring, customer_id: str, now: datetime) -> None:
    """Let the address from sign-up count from now on. Raises CustomerNotFoundError."""
    row = require_customer(session, customer_id)
    if email := self_reported(keyring, row).get(ENTERED):
        _store_fields(keyring, row, {"email": email}, now, drop=(ENTERED,))
        session.flush()


def set_requested_address(
    session: Session, keyring: Keyring, customer_id: str, email: str | None, at: datetime | None, now: datetime
) -> None:
    """Store a requested address that takes effect at `at`, or drop it (None, None). Raises CustomerNotFoundError."""
    row = require_customer(session, customer_id)
    _store_fields(keyring, row, {REQUESTED: email} if email else {}, now, drop=(REQUESTED,))
    row.email_change_at = at
    session.flush()


def absorb(keyring: Keyring, kept: Customer, merged: Customer) -> None:
    """Move the entered data of a merged account to the remaining one, whose own data takes precedence.

    The merged account keeps only its `custom_id`.
    """
    theirs = _known(keyring, merged)
    custom = {CUSTOM: theirs.pop(CUSTOM)} if CUSTOM in theirs else {}
    both = {**theirs, **_known(keyring, kept)}
    if "email" in both:
        both.pop(ENTERED, None)
    _encrypt(keyring, kept, both)
    _encrypt(keyring, merged, custom)


def custom_ids(session: Session, keyring: Keyring, customer_id: str) -> list[str]:
    """Return every `custom_id` of the customer, the newest first: of merged accounts and of all subscriptions too."""
    own = select(Customer).where(or_(Customer.id == customer_id, Customer.merged_into == customer_id))
    found = [self_reported(keyring, row) for row in session.execute(own.order_by(Customer.id)).scalars()]
    found += [subscriber_details(keyring, row) for row in subscriptions_of(session, customer_id)]
    newest = personal_data(session, keyring, customer_id)
    return list(dict.fromkeys(each[CUSTOM] for each in (newest, *found) if each.get(CUSTOM)))


def product_customers(session: Session, keyring: Keyring, customer_id: str) -> list[dict[str, str]]:
    """Return the customer as the product knows them: one object with `customer` and `email` per `custom_id`."""
    email = personal_data(session, keyring, customer_id).get("email", "")
    return [{"customer": custom, "email": email} for custom in custom_ids(session, keyring, customer_id) or [""]]


def require_customer(session: Session, customer_id: str, *, lock: bool = True) -> Customer:
    """Return the customer, with its row locked if `lock`. Raises CustomerNotFoundError if unknown, erased or merged."""
    row = session.get(Customer, customer_id, with_for_update=lock, populate_existing=lock)
    if row is not None and row.merged_into:
        raise CustomerNotFoundError(f"customer {customer_id} was merged into {row.merged_into}; use that id")
    if row is None or row.erased_at:
        raise CustomerNotFoundError(
            f"there is no customer {customer_id}; see: smt-billing customers list --search TEXT"
        )
    return row


def record_consent(
    session: Session, customer_id: str, kind: ConsentKind, *, given: bool, source: str, text_version: str, now: datetime
) -> None:
    """Store a consent or its refusal as proof, and apply the choice from now on."""
    session.add(
        Consent(customer_id=customer_id, at=now, kind=kind, given=given, source=source, text_version=text_version)
    )
    if column := CHOICES.get(kind):
        session.execute(update(Customer).where(Customer.id == customer_id).values({column: given}))
    session.flush()


def validate_field(field: Field, value: str) -> str:
    """Return the value as it is stored: one line without control characters. Raises InvalidFieldError."""
    text = " ".join(strip_controls(value).split())
    if len(text) > MAX_CHARACTERS[field]:
        raise InvalidFieldError(field, f"Please enter at most {MAX_CHARACTERS[field]} characters.")
    if field == "email":
        if not valid_address(text):
            raise InvalidFieldError(field, "Please enter an e-mail address such as ada@example.com.")
        return text
    if field == "name" and not clean_name(text):
        raise InvalidFieldError(field, "Please enter your name.")
    if field == "phone" and text and not set(text) <= set("+0123456789 ()-./"):
        raise InvalidFieldError(field, "Please enter a phone number such as +1 555 0100.")
    return text


def _belongs(session: Session, ids: Sequence[str], rows: Sequence[Subscription]) -> ColumnElement[bool]:
    """Condition for events without a subscription that name this customer, or their PayPal account and no known customer.

    An event that names the customer's `custom_id` together with another PayPal account belongs to another customer.
    """
    payer, payers = Event.facts["payer_ref"].as_string(), _references(rows, "payer_ref")
    by_custom = Event.customer_id.in_([*ids, *_references(rows, "custom_ref")])
    # No one can guess the `custom_id` of our own sign-up, so an event that names it needs no PayPal account.
    ours = select(Customer.id).where(Customer.id.in_(ids), Customer.signed_up_at.is_not(None))
    sole = Event.customer_id.in_(ids) & (payer.is_(None) | Event.customer_id.in_(ours))
    named = or_(by_custom & payer.in_([*payers, *ids]), sole)
    others = set(session.execute(select(Customer.id).where(Customer.id.in_(payers))).scalars()) if payers else set()
    of_no_customer = Event.customer_id.is_not(None) & Event.customer_id.not_in(select(Customer.id))
    return or_(named, of_no_customer & payer.in_(sorted(set(payers) - others)))


def _sales_of_others(session: Session, rows: Sequence[Subscription], key_ids: set[str]) -> set[str]:
    """Return the key ids of sales of other subscriptions. A refund may name the customer and a sale of another person."""
    sales = [key_id.removeprefix(SALE) for key_id in key_ids if key_id.startswith(SALE)]
    others = Payment.subscription_id.not_in([row.id for row in rows])
    found = select(Payment.id).where(in_list(Payment.id, sales), others)
    return {f"{SALE}{id}" for id in session.execute(found).scalars()} if sales else set()


def _references(rows: Sequence[Subscription], name: str) -> list[str]:
    """Return the keyed hashes of this kind that the subscriptions name."""
    return sorted({str(lww_map.value(row.known, name)) for row in rows if lww_map.value(row.known, name)})


def _subscriber(keyring: Keyring, row: PersonalDataRow) -> lww_map.LwwMap:
    if row.personal_data is None:  # nothing to decrypt, so the key is not loaded
        return {}
    data_key = keyring.load([row.id], create=False).get(row.id)
    return (data_key.decrypt_json("subscription.personal_data", row.personal_data) if data_key else None) or {}


def _with_full_name(known: lww_map.LwwMap) -> dict[str, str]:
    """Return the values, with PayPal's given name and surname joined as `name`."""
    found = {field: lww_map.value(known, field) for field in known}
    names = [name for name in (found.pop("given_name", ""), found.pop("surname", "")) if name]
    return {"name": " ".join(names), **found} if names else found


def _known(keyring: Keyring, row: PersonalDataRow) -> dict[str, Any]:
    if row.personal_data is None:  # nothing to decrypt, so the key is not loaded
        return {}
    data_key = keyring.load([row.id], create=False).get(row.id)
    return (data_key.decrypt_json("customer.personal_data", row.personal_data) if data_key else None) or {}


def _store_fields(
    keyring: Keyring, row: Customer, values: Mapping[str, str], now: datetime, drop: Sequence[str] = ()
) -> None:
    """Replace these fields and remove those to drop."""
    others = {name: entry for name, entry in _known(keyring, row).items() if name not in (*values, *drop)}
    _encrypt(keyring, row, lww_map.merge(others, now, values))


def _encrypt(keyring: Keyring, row: Customer, known: lww_map.LwwMap) -> None:
    data_key, email = keyring.get(row.id), lww_map.value(known, "email")
    if data_key is None:
        raise CustomerNotFoundError(f"customer {row.id} has been erased")
    row.personal_data = data_key.encrypt_json("customer.personal_data", known)
    row.email_hash = keyring.email_hash(email) if email else None


def _rerender_pending_mail(session: Session, key_ids: Sequence[str], now: datetime) -> None:
    """Have queued mail rendered again, and make mail due that waited for an address."""
    waiting = (
        update(Mail)
        .where(Mail.key_id.in_(key_ids), Mail.state == "queued")
        .execution_options(synchronize_session=False)
    )
    session.execute(waiting.values(frozen=None, recipient=None))
    session.execute(waiting.where(Mail.due_at.is_(None)).values(due_at=now))


def _email_changed(customer_id: str, old: str, new: str, now: datetime) -> list[outbox.NewMail]:
    """Build mails to both addresses, so the owner of the old one notices a change made by another person."""
    return [
        outbox.NewMail(
            "email_changed", f"email_changed:{customer_id}:{format_time(now)}:{which}", None,
            {"changed_at": format_time(now), "is_old": which == "old"}, customer_id=customer_id, to=address,
        )
        for which, address in (("new", new), ("old", old))
    ]  # fmt: skip

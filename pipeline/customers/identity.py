"""Decide which customer a subscription belongs to.

A subscription has a customer only once it is established: it has been active, or a payment was completed. Before that
PayPal repeats whatever subscriber the caller of its API named.

The first PayPal account that is established under a `custom_id` owns it. Another PayPal account under the same
`custom_id` is another customer, and the operator gets a mail. An unknown PayPal account owns nothing, unless our own sign-up
made the `custom_id`, which no one can guess.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, cast

from sqlalchemy import Table, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db import lww_map
from pipeline.db.bulk import in_list, insert_new
from pipeline.db.models import Customer
from pipeline.db.rows import SubscriptionRow
from pipeline.outbox.store import NewMail

CUSTOMER = cast(Table, Customer.__table__).c


class Owner(NamedTuple):
    """The columns of a customer that decide about their subscriptions."""

    id: str
    payer_ref: str | None
    merged_into: str | None
    signed_up_at: datetime | None
    erased_at: datetime | None
    email_hash: bytes | None  # of the confirmed address


COLUMNS = [CUSTOMER[name] for name in Owner._fields]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The customers of the subscriptions, by id, the new ones, and the mails to the operator about shared custom ids."""

    customers: dict[str, Owner] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    alerts: list[NewMail] = field(default_factory=list)


def assign_customers(session: Session, keyring: Keyring, rows: Iterable[SubscriptionRow], now: datetime) -> Assignment:
    """Set `customer_id` of these subscriptions: the customer of an established one, otherwise None.

    Missing customers are created. Rows of customers are written in the order of their ids.
    """
    result = Assignment()
    established = [row for row in rows if row.is_established]
    for row in rows:
        row.customer_id = None
    if not established:
        return result
    _claim(session, result, established, now)
    for row in established:
        row.customer_id = _customer_of(row, keyring, result)
    _create_missing(session, result, sorted({row.customer_id for row in established if row.customer_id}), now)
    for row in established:
        owner = result.customers.get(row.customer_id or "")
        row.customer_id = owner and (owner.merged_into or owner.id)
    _load_into(session, result.customers, {row.customer_id for row in established if row.customer_id})
    return result


def follow_merges(session: Session, rows: Iterable[SubscriptionRow]) -> None:
    """Set `customer_id` to the remaining account where an account was merged after `assign_customers`."""
    merged = select(CUSTOMER.id, CUSTOMER.merged_into).where(CUSTOMER.merged_into.is_not(None))
    ids = sorted({row.customer_id for row in rows if row.customer_id})
    kept = {row.id: row.merged_into for row in session.connection().execute(merged.where(in_list(CUSTOMER.id, ids)))}
    for row in rows:
        row.customer_id = kept.get(row.customer_id, row.customer_id)


def _claim(session: Session, result: Assignment, rows: Sequence[SubscriptionRow], now: datetime) -> None:
    """Load the customers that the rows name, after each unowned custom_id got its first PayPal account as owner."""
    claims: dict[str, str | None] = {}
    for row in sorted(rows, key=lambda row: (row.created_at, row.id)):
        custom, payer = _references(row)
        if custom and payer:
            claims.setdefault(custom, payer)
    owners = result.customers
    _load_into(session, owners, {reference for row in rows for reference in _references(row) if reference})
    missing = sorted(claims.keys() - owners.keys())
    rows_of_missing = [{"id": id, "created_at": now, "payer_ref": claims[id]} for id in missing]
    result.new.update(insert_new(session, Customer, rows_of_missing, returning=Customer.id))
    unowned = sorted(id for id in claims.keys() & owners.keys() if owners[id].payer_ref is None)
    for id in unowned:
        free = update(Customer).where(Customer.id == id, Customer.payer_ref.is_(None))
        session.execute(free.values(payer_ref=claims[id]).execution_options(synchronize_session=False))
    for id in unowned:
        del owners[id]
    _load_into(session, owners, {*unowned, *missing})  # another process may have been first


def _customer_of(row: SubscriptionRow, keyring: Keyring, result: Assignment) -> str | None:
    """Return the id of the customer of an established subscription, before merges."""
    custom, payer = _references(row)
    if custom is None:
        return payer
    owner = result.customers.get(custom)
    if payer is None:
        return custom if owner and owner.signed_up_at else None
    if owner is None or owner.payer_ref == payer:
        return custom
    shared = f"s{keyring.digest(INDEX, f'custom_payer:{custom}:{payer}').hex()[:30]}"
    result.alerts.append(_alert(row.id, custom, shared))
    return shared


def _create_missing(session: Session, result: Assignment, ids: Sequence[str], now: datetime) -> None:
    _load_into(session, result.customers, set(ids))
    missing = [id for id in ids if id not in result.customers]
    rows = [{"id": id, "created_at": now} for id in missing]
    result.new.update(insert_new(session, Customer, rows, returning=Customer.id))
    _load_into(session, result.customers, set(missing))


def _load_into(session: Session, owners: dict[str, Owner], ids: set[str]) -> None:
    """Load the customers that are not loaded yet."""
    wanted = sorted(ids - owners.keys())
    if wanted:
        found = session.connection().execute(select(*COLUMNS).where(in_list(CUSTOMER.id, wanted))).all()
        owners.update({row.id: Owner(*row) for row in found})


def _references(row: SubscriptionRow) -> tuple[str | None, str | None]:
    """Return the keyed hashes of the subscription's `custom_id` and PayPal account."""
    return lww_map.value(row.known, "custom_ref"), lww_map.value(row.known, "payer_ref")


def _alert(subscription_id: str, custom: str, customer_id: str) -> NewMail:
    facts = {"subscription": subscription_id, "owner": custom, "customer": customer_id}
    return NewMail("custom_id_shared", f"custom_id_shared:{customer_id}", None, facts)

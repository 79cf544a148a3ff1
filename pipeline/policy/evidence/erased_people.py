"""Search all tables for what is left of an erased customer, independent of the list that the erasure itself has kept.

A row belongs to the person if a column that names a customer, a subscription or an encryption key has one of their ids.
Of such a row from before the erasure, no encrypted column and no free text may be left.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, Text, and_, or_, select

from pipeline.db.models import Erasure

# Columns that name a person's rows, in any table.
NAMING = ("customer_id", "subscription_id", "key_id", "merged_into")
# Tables whose own id is the person's.
PEOPLE = ("customer", "subscription")
TIMES = ("created_at", "received_at", "at")
FREE_TEXT = ("reason", "relay_reply", "details", "outcome")
# What may stay: the reason that every cleared mail has, and keys, which are looked at by themselves.
NOT_PERSONAL = {"the customer's data has been erased"}
KEYS = "encryption_key"
SEARCHED_VALUES = 900  # in one condition; SQLite limits the number of parameters


def remains(connection: Connection, erasure: Erasure, metadata: MetaData) -> list[str]:
    """Return what is left, as `table.column`, and `key ID` for a key that still exists."""
    ids = _ids_of(connection, erasure, metadata)
    found = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in _personal_columns(table)
        if _is_filled(connection, table, column, ids, erasure.at)
    ]
    return found + _keys(connection, metadata.tables[KEYS], ids, erasure)


def _ids_of(connection: Connection, erasure: Erasure, metadata: MetaData) -> list[str]:
    """Return the person's id, those of accounts merged into it, and their subscriptions."""
    customer, subscription = metadata.tables["customer"], metadata.tables["subscription"]
    merged = select(customer.c.id).where(customer.c.merged_into == erasure.customer_id)
    people = [erasure.customer_id, *connection.execute(merged).scalars()]
    owned = select(subscription.c.id).where(
        or_(subscription.c.customer_id.in_(people), subscription.c.id == erasure.customer_id),
        subscription.c.created_at < erasure.at,
    )
    return [*people, *connection.execute(owned).scalars()][:SEARCHED_VALUES]


def _personal_columns(table: Table) -> list[Column[Any]]:
    """Return the columns that may hold personal data: encrypted ones, keyed hashes of addresses, and free text."""
    if table.name == KEYS:
        return []
    return [
        column
        for column in table.columns
        if isinstance(column.type, LargeBinary) or (isinstance(column.type, Text) and column.name in FREE_TEXT)
    ]


def _is_filled(connection: Connection, table: Table, column: Column[Any], ids: list[str], before: datetime) -> bool:
    named = [table.c[name].in_(ids) for name in NAMING if name in table.c]
    named += [table.c.id.in_(ids)] if table.name in PEOPLE else []
    if not named:
        return False
    # An account may have been made and erased at one time. The confirmation of the erasure is made with it, too.
    times = [table.c[name] for name in TIMES if name in table.c][:1]
    older = [at <= before if table.name in PEOPLE else at < before for at in times]
    kept = [column.not_in(NOT_PERSONAL)] if isinstance(column.type, Text) else []
    statement = select(column).where(or_(*named), column.is_not(None), and_(*older, *kept)).limit(1)
    return connection.execute(statement).first() is not None


def _keys(connection: Connection, keys: Table, ids: list[str], erasure: Erasure) -> list[str]:
    alive = select(keys.c.key_id).where(
        keys.c.key_id.in_(ids), keys.c.wrapped_key.is_not(None), keys.c.created_at < erasure.at
    )
    return [f"key {id}" for id in connection.execute(alive).scalars()]

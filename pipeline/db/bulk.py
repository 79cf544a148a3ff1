"""Read, insert and update many rows with one statement whose text does not depend on the number of rows.

So SQLAlchemy compiles it once, and PostgreSQL plans it once. `RowSet` holds the rows of one table in a transaction.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Protocol, TypeVar, cast

import orjson
from sqlalchemy import (
    ARRAY,
    JSON,
    BindParameter,
    Boolean,
    ColumnElement,
    CursorResult,
    Dialect,
    Executable,
    Integer,
    LargeBinary,
    Table,
    Text,
    Update,
    bindparam,
    column,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

Values = Mapping[str, Any]
Names = tuple[str, ...]


class IdentifiedRow(Protocol):
    """A dataclass with one field per column of a table, `id` among them."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    id: str


Row = TypeVar("Row", bound=IdentifiedRow)


class RowSet(dict[str, Row]):
    """Rows of one table by id. `write` inserts the new ones and updates the changed ones."""

    def __init__(self, session: Session, table: type[DeclarativeBase], row: type[Row]) -> None:
        super().__init__()
        self._session, self._class, self._row = session, table, row
        self._names = tuple(field.name for field in fields(row))
        self._columns = [table_of(table).c[name] for name in self._names]
        self._values = attrgetter(*self._names)
        self._read: dict[str, tuple[Any, ...]] = {}

    def read(self, where: ColumnElement[bool]) -> None:
        """Load the rows that match. Rows that are loaded already are replaced."""
        self._load(select(*self._columns).where(where))

    def lock(self, ids: Iterable[str], blank: Values, *, share: bool = False) -> None:
        """Load and lock these rows. Insert `blank` for each id without a row, because only existing rows can be locked."""
        wanted, id = sorted(set(ids)), table_of(self._class).c.id
        if wanted:
            rows = [{"id": each, **blank} for each in wanted]
            insert_new(self._session, self._class, rows, returning=cast(Any, self._class).id)
            statement = select(*self._columns).where(in_list(id, wanted)).order_by(id)
            self._load(statement.with_for_update(read=share))

    def add(self, row: Row) -> None:
        """Add a new row."""
        self[row.id] = row

    def write(self) -> None:
        """Insert the new rows, then update the changed ones, both in the order of their ids."""
        now = {id: self._values(self[id]) for id in sorted(self)}
        insert(self._session, self._class, [self._named(now[id]) for id in now if id not in self._read])
        changed = [id for id, values in now.items() if id in self._read and values != self._read[id]]
        bulk_update_partial(self._session, self._class, [self._named(now[id]) for id in changed])
        self._read = now

    def _named(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self._names, values, strict=True))

    def _load(self, statement: Executable) -> None:
        for values in self._session.connection().execute(statement).all():
            row = self._row(*values)
            self[row.id], self._read[row.id] = row, tuple(values)


class _Texts(UserDefinedType[list[str]]):
    """Sends a list of texts as one text: a PostgreSQL array literal (faster than psycopg's), or JSON on SQLite.

    https://www.postgresql.org/docs/15/arrays.html#ARRAYS-IO
    """

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:
        return _as_json if dialect.name == "sqlite" else _as_array


def _as_json(texts: list[str]) -> str:
    return orjson.dumps(texts).decode()


def _as_array(texts: list[str]) -> str:
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def texts(name: str) -> BindParameter[Any]:
    """Return a parameter for a list of texts. The list is passed under this name when the statement is executed."""
    return bindparam(name, type_=_Texts())


class in_list(FunctionElement[bool]):  # noqa: N801 - reads as an operator
    """A condition: the column is one of these texts. Unlike with IN, the statement is the same for any number of texts.

    A statement that is built once and executed often passes the texts by name, see `texts`.
    """

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: Any, these: "Iterable[str] | BindParameter[Any]") -> None:
        is_named = isinstance(these, BindParameter)
        super().__init__(column, these if is_named else bindparam("texts", list(these), type_=_Texts(), unique=True))

    def self_group(self, against: Any = None) -> "in_list":
        """Return it unchanged. SQLAlchemy would write `... = 1`, and SQLite would then use no index."""
        return self


@compiles(in_list)
def _in_array(element: in_list, compiler: SQLCompiler, **options: Any) -> str:
    tested, these = element.clauses
    return compiler.process(tested == func.any(sql_cast(these, ARRAY(Text))), **options)


@compiles(in_list, "sqlite")
def _in_json(element: in_list, compiler: SQLCompiler, **options: Any) -> str:
    tested, these = element.clauses
    values = func.json_each(these).table_valued("value")
    return compiler.process(tested.in_(select(values.c.value)), **options)


def insert_new(
    session: Session, table: type[DeclarativeBase], rows: Sequence[Values], *, returning: InstrumentedAttribute[str]
) -> list[str]:
    """Insert the rows that violate no unique constraint, skip the others. Return column `returning` of the inserted rows."""
    if not rows:
        return []
    if _is_sqlite(session):
        return _insert_new_on_sqlite(session, table_of(table), rows, returning.key)
    statement = _insert_from_json(table_of(table), tuple(rows[0]), returning.key)
    return list(_send_as_json(session, statement, table_of(table), rows).scalars())


def _insert_new_on_sqlite(session: Session, table: Table, rows: Sequence[Values], returning: str) -> list[str]:
    """Insert without RETURNING, because SQLAlchemy would compile that statement again for each number of rows."""
    connection = session.connection()
    count = connection.execute(_insert_or_skip(table), rows).rowcount
    if count in (0, len(rows)):
        return [row[returning] for row in rows[:count]]
    # SQLite has one writer at a time, so the inserted rows have the highest row ids.
    last = literal_column("rowid") > func.last_insert_rowid() - bindparam("count")
    return list(connection.execute(select(table.c[returning]).where(last), {"count": count}).scalars())


@lru_cache
def _insert_or_skip(table: Table) -> Executable:
    return sqlite.insert(table).on_conflict_do_nothing()


def insert(session: Session, table: type[DeclarativeBase], rows: Sequence[Values]) -> None:
    """Insert new rows. None of them may exist."""
    if rows:
        session.connection().execute(table_of(table).insert(), rows)


def bulk_update_partial(
    session: Session,
    table: type[DeclarativeBase],
    rows: Sequence[Values],
    *,
    only: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Update the columns that each row names, by its `id`. Return how many rows were updated.

    `only` restricts the update: column -> the values that the stored row must have. Rows that name the same columns are
    sent in one statement.
    """
    groups: dict[Names, list[Values]] = defaultdict(list)
    for row in rows:
        groups[tuple(row)].append(row)
    limits = {f"only_{name}": list(allowed) for name, allowed in (only or {}).items()}
    return sum(_update_alike(session, table_of(table), group, tuple(only or ()), limits) for group in groups.values())


def _update_alike(session: Session, table: Table, rows: list[Values], only: Names, limits: Values) -> int:
    """Update rows that all name the same columns."""
    names = tuple(rows[0])
    if not _is_sqlite(session):
        return _send_as_json(session, _update_from_json(table, names, only), table, rows, limits).rowcount
    parameters = [{**{f"new_{name}": value for name, value in row.items()}, **limits} for row in rows]
    return session.connection().execute(_update_each(table, names, only), parameters).rowcount


@lru_cache
def _update_each(table: Table, names: Names, only: Names) -> Executable:
    return _update(table, {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names}, only)


def _update(table: Table, values: Values, only: Names) -> Update:
    """Return an UPDATE of the row with `values["id"]`."""
    limits = [in_list(table.c[name], texts(f"only_{name}")) for name in only]
    others = {name: value for name, value in values.items() if name != "id"}
    return update(table).where(table.c.id == values["id"], *limits).values(others)


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def table_of(table: type[DeclarativeBase]) -> Table:
    """Return the Core table of an ORM class."""
    return cast(Table, table.__table__)


# On PostgreSQL, `insert_new` and `bulk_update_partial` send all rows as one JSON parameter. Per row, an INSERT with many
# VALUES costs 1.6 to 2.1 times as much processor time, and executemany with UPDATE 1.3 to 2.4 times. `insert` gains nothing.
# Binary values are joined in a second parameter and cut by position: hexadecimal in JSON costs three times as much.
# JSON columns are sent as texts, because \u0000 is allowed in a JSON text and not in a parsed JSON string.


def _send_as_json(
    session: Session, statement: Executable, table: Table, rows: Sequence[Values], more: Values | None = None
) -> CursorResult[Any]:
    binary, documents = _kinds(table, tuple(rows[0]))
    joined: list[bytes] = []
    if binary or documents:
        places = _Places(joined)
        rows = [
            {
                **row,
                **{name: places.of(row[name]) for name in binary},
                **{name: orjson.dumps(row[name]).decode() for name in documents},
            }
            for row in rows
        ]
    parameters = {
        "rows": orjson.dumps(rows).decode(),
        **({"joined": b"".join(joined)} if binary else {}),
        **(more or {}),
    }
    return session.connection().execute(statement, parameters)


class _Places:
    """Joins binary values and returns the position of each: [start, length], where start counts from 1."""

    def __init__(self, joined: list[bytes]) -> None:
        self._joined, self._next = joined, 1

    def of(self, value: bytes | None) -> list[int] | None:
        if value is None:
            return None
        place = [self._next, len(value)]
        self._joined.append(value)
        self._next += len(value)
        return place


@lru_cache
def _kinds(table: Table, names: Names) -> tuple[list[str], list[str]]:
    """Return the names of the binary columns and of the JSON columns."""
    binary = [name for name in names if isinstance(table.c[name].type, LargeBinary)]
    return binary, [name for name in names if isinstance(table.c[name].type, JSON)]


@lru_cache
def _insert_from_json(table: Table, names: Names, returning: str) -> Executable:
    statement = postgresql.insert(table).from_select(names, select(*_sent(table, names).values()))
    return statement.on_conflict_do_nothing().returning(table.c[returning])


@lru_cache
def _update_from_json(table: Table, names: Names, only: Names) -> Executable:
    return _update(table, _sent(table, names), only)


def _sent(table: Table, names: Names) -> dict[str, ColumnElement[Any]]:
    """Return the columns of what `_send_as_json` sends."""
    binary, documents = _kinds(table, names)
    types = {name: table.c[name].type for name in names}
    types |= dict.fromkeys(binary, ARRAY(Integer)) | dict.fromkeys(documents, Text())
    rows = sql_cast(bindparam("rows", type_=Text()), JSON)
    sent = func.json_to_recordset(rows).table_valued(*(column(name, kind) for name, kind in types.items()))
    new = sent.render_derived(name="new", with_types=True)
    joined = bindparam("joined", type_=LargeBinary())
    return {
        name: func.substring(joined, new.c[name][1], new.c[name][2])
        if name in binary
        else sql_cast(new.c[name], JSON)
        if name in documents
        else new.c[name]
        for name in names
    }

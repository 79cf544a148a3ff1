"""Many rows at once: read, put in and changed by one statement each, whose text is the same for any number of rows.

So it is put together once, and PostgreSQL plans it once. `Rows` are those of one table that a transaction has at hand.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import orjson
from sqlalchemy import (
    JSON,
    BindParameter,
    Boolean,
    ColumnElement,
    CursorResult,
    Dialect,
    LargeBinary,
    Table,
    and_,
    bindparam,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

Row = TypeVar("Row", bound=DeclarativeBase)
_NONE: Mapping[str, Any] = {}


class Rows(dict[str, Row]):
    """Rows of one table by their id, as plain objects. What was changed in them is written by `write`."""

    def __init__(self, session: Session, table: type[Row]) -> None:
        super().__init__()
        self._session, self._class = session, table
        self._table = cast(Table, table.__table__)
        self._names = tuple(column.name for column in self._table.columns)
        self._values = attrgetter(*self._names)
        self._read: dict[str, tuple[Any, ...]] = {}

    def read(self, where: ColumnElement[bool]) -> None:
        """Take these rows in, anew where they are at hand already."""
        self._take(select(*self._table.columns).where(where))

    def lock(self, ids: Iterable[str], blank: Mapping[str, Any], *, share: bool = False) -> None:
        """Take these rows in, locked; placeholders put in where there were none, so that there is something to lock."""
        wanted, id = sorted(set(ids)), self._table.c.id
        if wanted:
            rows = [{"id": each, **blank} for each in wanted]
            insert_new(self._session, self._class, rows, returning=cast(Any, self._class).id)
            statement = select(*self._table.columns).where(among(id, wanted)).order_by(id)
            self._take(statement.with_for_update(read=share))

    def add(self, row: Row) -> None:
        """A row that is new."""
        self[cast(Any, row).id] = row

    def write(self) -> None:
        """Put in what is new, then change what was changed, each in the order of its ids."""
        now = {id: self._values(self[id]) for id in sorted(self)}
        insert(self._session, self._class, [self._named(now[id]) for id in now if id not in self._read])
        changed = [id for id, values in now.items() if id in self._read and values != self._read[id]]
        rewrite(self._session, self._class, [self._named(now[id]) for id in changed])
        self._read = now

    def _named(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self._names, values, strict=True))

    def _take(self, statement: Any) -> None:
        place = self._names.index("id")
        for values in self._session.connection().execute(statement).all():
            id = values[place]
            self._read[id] = tuple(values)
            self[id] = cast("Row", SimpleNamespace(**self._named(values)))


class _Texts(UserDefinedType[list[str]]):
    """A list of texts as one text: PostgreSQL's own way to write an array (psycopg's is slow), or JSON on SQLite.

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
    """A list of texts that a statement is given by this name when it is executed."""
    return bindparam(name, type_=_Texts())


class among(FunctionElement[bool]):  # noqa: N801 - reads as an operator
    """Whether a column is one of these texts. Unlike IN, the statement is the same for any number of them.

    A statement that is made once and executed often takes the texts by name, see `texts`.
    """

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: Any, these: "Iterable[str] | BindParameter[Any]") -> None:
        given = isinstance(these, BindParameter)
        super().__init__(column, these if given else bindparam("texts", list(these), type_=_Texts(), unique=True))

    def self_group(self, against: Any = None) -> "among":
        """It is a condition as it stands: SQLAlchemy would make it `... = 1`, for which SQLite has no index."""
        return self


@compiles(among)
def _among_array(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, texts = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} = ANY (CAST({texts} AS text[]))"


@compiles(among, "sqlite")
def _among_json(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, texts = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({texts}))"  # noqa: S608 # nosec B608 - names of our own tables


def insert_new(
    session: Session,
    table: type[DeclarativeBase],
    rows: Sequence[Mapping[str, Any]],
    *,
    returning: InstrumentedAttribute[str],
) -> list[str]:
    """Insert the rows that break no unique rule, leave the others; the given column of those that went in."""
    if not rows:
        return []
    if _is_sqlite(session):
        return _insert_new_each(session, _of(table), rows, returning.key)
    ending = f"ON CONFLICT DO NOTHING RETURNING {returning.key}"
    return list(_send(session, _insert(_of(table), tuple(rows[0]), ending), _of(table), rows).scalars().all())


def _insert_new_each(session: Session, table: Table, rows: Sequence[Mapping[str, Any]], returning: str) -> list[str]:
    """SQLite's way. With RETURNING, the statement would be put together anew for each number of rows."""
    connection = session.connection()
    count = connection.execute(_new(table), rows).rowcount
    if count in (0, len(rows)):
        return [row[returning] for row in rows[:count]]
    # One writer at a time: what it put in bears the last numbers.
    where = "rowid > last_insert_rowid() - :count"
    query = text(f'SELECT {returning} FROM "{table.name}" WHERE {where}')  # noqa: S608 # nosec B608 - names of our own tables
    return list(connection.execute(query, {"count": count}).scalars())


@lru_cache
def _new(table: Table) -> Insert:
    return sqlite.insert(table).on_conflict_do_nothing()


def insert(session: Session, table: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all of which are new."""
    if rows and _is_sqlite(session):
        session.connection().execute(_of(table).insert(), rows)
    elif rows:
        _send(session, _insert(_of(table), tuple(rows[0]), ""), _of(table), rows)


def rewrite(session: Session, table: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]]) -> None:
    """Set the other columns of the rows with these ids."""
    if rows and _is_sqlite(session):
        values: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "id"}
        statement = update(_of(table)).where(_of(table).c.id == bindparam("this")).values(values)
        session.connection().execute(statement, [{**row, "this": row["id"]} for row in rows])
    elif rows:
        _send(session, _update(_of(table), tuple(rows[0])), _of(table), rows)


def change(
    session: Session,
    table: type[DeclarativeBase],
    rows: Sequence[Mapping[str, Any]],
    *,
    only: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Set what each row names besides its id, if the columns of `only` hold one of these texts. How many were changed.

    All rows that name the same columns go in one statement.
    """
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[tuple(row)].append(row)
    put = _change_each if _is_sqlite(session) else _change_all
    return sum(put(session, _of(table), names, some, only or {}) for names, some in alike.items())


def _change_each(
    session: Session, table: Table, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]], only: Mapping[str, Any]
) -> int:
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names if name != "id"}
    where = and_(
        table.c.id == bindparam("new_id"),
        *(or_(*(table.c[name] == each for each in texts)) for name, texts in only.items()),
    )
    told = [{f"new_{name}": value for name, value in row.items()} for row in rows]
    return session.connection().execute(update(table).where(where).values(values), told).rowcount


def _change_all(
    session: Session, table: Table, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]], only: Mapping[str, Any]
) -> int:
    told = {f"only_{name}": _as_array(list(texts)) for name, texts in only.items()}
    return _send(session, _update(table, names, tuple(only)), table, rows, told).rowcount


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _of(table: type[DeclarativeBase]) -> Table:
    return cast(Table, table.__table__)


# PostgreSQL takes many rows as one JSON parameter, and beside it a list for each column of octets: as hexadecimal in JSON
# they would cost it three times as much. JSON columns travel in it as text, for a text may hold what JSON's own strings
# may not once they are read: \\u0000.


def _send(
    session: Session, statement: str, table: Table, rows: Sequence[Mapping[str, Any]], more: Mapping[str, Any] = _NONE
) -> CursorResult[Any]:
    octets, documents = _kinds(table, tuple(rows[0]))
    lists = {name: [row[name] for row in rows] for name in octets}
    if octets or documents:
        rows = [_in_json(row, octets, documents) for row in rows]
    return session.connection().exec_driver_sql(statement, {"rows": orjson.dumps(rows).decode(), **lists, **more})


def _in_json(row: Mapping[str, Any], octets: Iterable[str], documents: Iterable[str]) -> dict[str, Any]:
    told = dict(row)
    for name in octets:
        del told[name]
    for name in documents:
        told[name] = orjson.dumps(told[name]).decode()
    return told


@lru_cache
def _kinds(table: Table, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The columns that hold octets, and those that hold JSON."""
    octets = [name for name in names if isinstance(table.c[name].type, LargeBinary)]
    return octets, [name for name in names if isinstance(table.c[name].type, JSON)]


@lru_cache
def _insert(table: Table, names: tuple[str, ...], ending: str) -> str:
    return f'INSERT INTO "{table.name}" ({", ".join(names)}) {_unpacked(table, names)} {ending}'  # noqa: S608 # nosec B608 - names of our own tables


@lru_cache
def _update(table: Table, names: tuple[str, ...], only: tuple[str, ...] = ()) -> str:
    values = ", ".join(f"{name} = new.{name}" for name in names if name != "id")
    where = ["old.id = new.id", *(f"old.{name} = ANY (CAST(%(only_{name})s AS text[]))" for name in only)]
    found = f"({_unpacked(table, names)}) AS new"
    return f'UPDATE "{table.name}" AS old SET {values} FROM {found} WHERE {" AND ".join(where)}'  # noqa: S608 # nosec B608 - names of our own tables


def _unpacked(table: Table, names: tuple[str, ...]) -> str:
    """What `_send` sends, as rows."""
    octets, documents = _kinds(table, names)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    types = {name: table.c[name].type.compile(dialect) for name in names if name not in octets}
    types |= dict.fromkeys(documents, "text")
    columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
    parts = [f"json_to_recordset(CAST(%(rows)s AS json)) AS ({columns})"]
    parts += [f"unnest(CAST(%({name})b AS bytea[]))" for name in octets]
    values = ", ".join(f"CAST({name} AS json) AS {name}" if name in documents else name for name in names)
    return f"SELECT {values} FROM ROWS FROM ({', '.join(parts)}) AS row({', '.join((*types, *octets))})"  # noqa: S608 # nosec B608 - names of our own tables

"""What all SQLAlchemy engines of a test process have in common. Importing this module enables it; tests/conftest.py does.

Statements are compiled once. SQLAlchemy caches compiled statements per engine, and nearly every test creates an engine:
compiling takes more than half of the time that such a test spends in SQLAlchemy. Therefore every connection shares one
cache and uses the dialect of the first engine of its kind.

Engines are closed after each test. A test may leave pooled connections behind, and Python 3.13 warns of each SQLite
connection that is garbage collected before it is closed. A database in memory ends with its connection, so it stays open:
several tests may share it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, Pool, event

_first: dict[tuple[type[Dialect], Any], Dialect] = {}
_compiled: dict[Any, Any] = {}
_used: dict[Pool, Engine] = {}  # they must not be garbage collected before they are closed


@event.listens_for(Engine, "engine_connect")
def _on_connect(connection: Connection) -> None:
    dialect = connection.dialect
    connection.dialect = _first.setdefault((type(dialect), getattr(dialect, "_json_serializer", None)), dialect)
    connection.execution_options(compiled_cache=_compiled)
    if connection.engine.url.database != ":memory:":
        _used.setdefault(connection.engine.pool, connection.engine)


@contextmanager
def closed_afterwards() -> Iterator[None]:
    """Close the engines that are first used in this block. Engines of longer-lived fixtures stay open."""
    before = set(_used)
    yield
    for pool in _used.keys() - before:
        _used.pop(pool).dispose()

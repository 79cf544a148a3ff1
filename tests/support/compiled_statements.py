"""Compile each SQL statement once per process instead of once per database.

SQLAlchemy keeps compiled statements per engine, and nearly every test makes an engine of its own: compiling takes more
than half of the time that such a test spends in SQLAlchemy. Every connection of this process therefore uses the dialect
of the first engine of its kind, and one cache. Import this module to switch it on; the tests' conftest does.
"""

from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event

_first: dict[tuple[type[Dialect], Any], Dialect] = {}
_compiled: dict[Any, Any] = {}


@event.listens_for(Engine, "engine_connect")
def _share(connection: Connection) -> None:
    dialect = connection.dialect
    connection.dialect = _first.setdefault((type(dialect), getattr(dialect, "_json_serializer", None)), dialect)
    connection.execution_options(compiled_cache=_compiled)

"""Compile each SQL statement once per process instead of once per database.

SQLAlchemy caches compiled statements per engine, and nearly every test creates an engine. Compiling takes more than half
of the time that such a test spends in SQLAlchemy. Therefore every connection of this process shares one cache and uses
the dialect of the first engine of its kind. Importing this module enables it; tests/conftest.py does so.
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

"""The declarative base of all tables."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Index, LargeBinary, MetaData, text
from sqlalchemy.orm import DeclarativeBase

from pipeline.db.column_types import UtcDateTime

# Alembic can change a constraint later only if it has a name.
NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}


class Base(DeclarativeBase):
    """Base class of all tables, with the column type of each Python type."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        bytes: LargeBinary(),
    }


def partial_index(name: str, column: str, where: str) -> Index:
    """Return an index of the rows that match `where`, so that its cost depends on the waiting rows only."""
    return Index(name, column, sqlite_where=text(where), postgresql_where=text(where))

"""Every column of every table says what kind of data it holds."""

from typing import get_args

from sqlalchemy import LargeBinary, inspect

from pipeline.db.models import Base
from pipeline.privacy import data_categories

TABLES = {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}


def test_every_column_has_one_category_and_every_category_named_is_of_a_column() -> None:
    for name, table in TABLES.items():
        columns = sorted(column.name for column in inspect(table).columns)
        named = [column for columns in data_categories.CATEGORIES.get(name, {}).values() for column in columns.split()]
        assert sorted(named) == columns, f"the categories of {name} are not its columns"
    assert set(data_categories.CATEGORIES) == set(TABLES)


def test_every_kind_of_data_is_held_somewhere() -> None:
    for category in get_args(data_categories.Category):
        assert data_categories.columns_holding(category)


def test_what_is_sealed_is_never_called_the_machines_own() -> None:
    """Bytes are sealed, wrapped or hashed: of a person, but for keys and the access log."""
    for name, table in TABLES.items():
        kinds = data_categories.categories_of(table)
        for column in inspect(table).columns:
            if isinstance(column.type, LargeBinary):
                assert kinds[column.name] not in ("operation", "vendor", "accountability"), f"{name}.{column.name}"

"""Data categories: every column of every table has exactly one."""

from typing import get_args

from sqlalchemy import LargeBinary, inspect

from pipeline.db.models import Base
from pipeline.privacy import data_categories

TABLES = {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}


def test_every_column_has_one_category() -> None:
    for name, table in TABLES.items():
        columns = sorted(column.name for column in inspect(table).columns)
        named = [column for columns in data_categories.CATEGORIES.get(name, {}).values() for column in columns.split()]
        assert sorted(named) == columns, f"categories and columns of {name} differ"
    assert set(data_categories.CATEGORIES) == set(TABLES)


def test_every_category_has_a_column() -> None:
    for category in get_args(data_categories.Category):
        assert data_categories.columns_holding(category)


def test_binary_columns_have_personal_or_security_category() -> None:
    """Binary columns hold encrypted values, wrapped keys or hashes, never technical data."""
    for name, table in TABLES.items():
        kinds = data_categories.categories_of(table)
        for column in inspect(table).columns:
            if isinstance(column.type, LargeBinary):
                assert kinds[column.name] not in ("operation", "vendor", "accountability"), f"{name}.{column.name}"

"""Search the columns that are not encrypted for personal data, in SQLite and PostgreSQL alike."""

import re
from collections.abc import Iterable, Iterator

from sqlalchemy import JSON, Column, Connection, LargeBinary, MetaData, String, Table, Text, select
from sqlalchemy.types import TypeDecorator

SAMPLE_ROWS = 2000  # the newest rows of each table that are searched
MIN_LENGTH = 6  # a shorter name or address is found by chance


def pattern_of(needles: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds these texts as whole words; None if there are none that are long enough."""
    long = sorted({each for each in needles if len(each) > MIN_LENGTH})
    return (
        re.compile(r"(?<![\w.+-])(?:" + "|".join(map(re.escape, long)) + r")(?![\w-])", re.IGNORECASE) if long else None
    )


def columns_with(connection: Connection, metadata: MetaData, pattern: re.Pattern[str]) -> list[str]:
    """Return the columns, as `table.column`, in which one of the newest rows contains a text of the pattern."""
    return [found for table in metadata.sorted_tables for found in _in_table(connection, table, pattern)]


def _in_table(connection: Connection, table: Table, pattern: re.Pattern[str]) -> Iterator[str]:
    columns = [column for column in table.columns if _is_readable(column)]
    if not columns:
        return
    newest = select(*columns).order_by(*(column.desc() for column in table.primary_key)).limit(SAMPLE_ROWS)
    found: set[str] = set()
    for row in connection.execute(newest):
        for column, value in zip(columns, row, strict=True):
            if value is not None and column.name not in found and pattern.search(str(value)):
                found.add(column.name)
    yield from (f"{table.name}.{name}" for name in sorted(found))


def _is_readable(column: Column[object]) -> bool:
    """Return whether people can read the column: texts and JSON, but not encrypted values, times and numbers."""
    type = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    return isinstance(type, String | Text | JSON) and not isinstance(type, LargeBinary)

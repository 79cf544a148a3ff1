"""Output of commands on stdout: JSON for programs, tables and lines for people. Progress goes to stderr."""

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import orjson
import typer
from babel.dates import format_date, format_time
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Advance = Callable[[int], None]  # moves a progress bar forward by this number of items
UNWRAPPED = frozenset({"id", "state", "status", "received (UTC)", "since (UTC)"})  # columns that are never wrapped
SHOWN = 50  # rows of a table unless --limit is given; --json shows all rows
WIDE = 240  # characters per line without a terminal, so that programs get one line per row
STATES = {
    "handled": "green", "sent": "green", "ACTIVE": "green", "completed": "green", "ok": "green",
    "received": "yellow", "queued": "yellow", "sending": "yellow", "warn": "yellow", "pending": "yellow",
    "SUSPENDED": "yellow", "doubt": "bold red", "parked": "bold red", "failed": "bold red", "fail": "bold red",
    "denied": "red", "reversed": "red", "unconfirmed": "red",
}  # fmt: skip


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    typer.echo(_escape_controls(orjson.dumps(value).decode()))


def json_lines(value: Any) -> str:
    """Return indented JSON."""
    return _escape_controls(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_line(text: str = "") -> None:
    """Print a line on stdout, without control characters: text from outside must not control the terminal."""
    typer.echo(strip_controls(text))


def print_raw(content: bytes) -> None:
    """Write bytes to stdout: unchanged to a file or program, on a terminal as text without control characters."""
    if sys.stdout.isatty():
        print_line(content.decode("utf-8", "replace").replace("\r\n", "\n"))
    else:
        sys.stdout.buffer.write(content)


def shorten(text: str | None, most: int = 100) -> str | None:
    """Return the text with at most this many characters, for a cell of a table."""
    return text if text is None or len(text) <= most else f"{text[: most - 1]}…"


def print_note(text: str) -> None:
    """Print a note for people on stderr."""
    typer.echo(strip_controls(text), err=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table without its empty columns. The columns in `numbers` are aligned to the right.

    If the terminal is too narrow for the table, print each row as a block with one line per value.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    used = [column for column in range(len(headings)) if any(row[column] for row in cells)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in used:
        _add_column(table, headings[column], [row[column] for row in cells], is_number=headings[column] in numbers)
    for row in cells:
        table.add_row(*(row[column] for column in used))
    screen = console()
    if Measurement.get(screen, screen.options.update(max_width=WIDE), table).minimum <= screen.width:
        screen.print(table)
        return
    for number, row in enumerate(cells):
        if number:
            print_line()
        print_pairs({headings[column]: row[column] for column in used if row[column]})


def _add_column(table: Table, heading: str, cells: Sequence[Text], *, is_number: bool) -> None:
    """Add a column. Ids, addresses and other single words are never wrapped, because people copy them."""
    is_unwrapped = heading in UNWRAPPED or not any(" " in cell.plain for cell in cells)
    width = max((cell.cell_len for cell in cells), default=0) if is_unwrapped else None
    table.add_column(
        heading, justify="right" if is_number else "left", overflow="fold", no_wrap=is_unwrapped, min_width=width
    )


def print_pairs(values: Mapping[str, object]) -> None:
    """Print one line per value: its name and the value. Values that are None are omitted."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None:
            table.add_row(name, _cell(value))
    console().print(table)


def print_more(total: int, shown: int) -> None:
    """Print how many rows were omitted, if any."""
    if total > shown:
        print_line(f"… and {total - shown:,} more; --limit {total} or --json shows all")


def format_moment(at: datetime | None, locale: str) -> str:
    """Return a time for people, to the minute, in UTC; "" for None."""
    return f"{format_date(at, 'medium', locale)} {format_time(at, 'short', locale=locale)} UTC" if at else ""


def format_day(at: datetime | None, locale: str) -> str:
    """Return a day for people, in UTC; "" for None."""
    return format_date(at, "medium", locale=locale) if at else ""


def format_stamp(text: str | None) -> str:
    """Return a time from JSON output to the minute, for example `2026-03-01 10:00`; "" for None."""
    return f"{text[:10]} {text[11:16]}" if text else ""


def parse_stamp(text: str | None) -> datetime | None:
    """Parse a time from JSON output; None for None or ""."""
    return datetime.fromisoformat(text) if text else None


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Show a progress bar on stderr if that is a terminal. Yields a function to call with the number of items done."""
    screen = Console(stderr=True)
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def console() -> Console:
    """Return a console on stdout with the width of its terminal."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=WIDE)


def strip_controls(text: str) -> str:
    """Replace control and direction characters, except line ends and tabs."""
    if text.isprintable():
        return text
    return "".join("�" if character not in "\n\t" and _is_control(character) else character for character in text)


def _escape_controls(json: str) -> str:
    """Escape control and direction characters in JSON, which may contain them only inside of texts (RFC 8259, section 7)."""
    if json.isprintable():
        return json
    return "".join(
        _escape(character) if character != "\n" and _is_control(character) else character for character in json
    )


def _escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()  # one code unit, or a surrogate pair
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _is_control(character: str) -> bool:
    return unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    text = "" if value is None else strip_controls(str(value))
    return Text(text, style=STATES.get(text, ""))

"""How a command answers: JSON for programs, tables and lines for people. Progress goes to stderr."""

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

Advance = Callable[[int], None]  # tells a progress bar how much more was done
WHOLE = frozenset({"id", "state", "status", "received (UTC)", "since (UTC)"})  # columns whose values are never folded
SHOWN = 50  # rows of a table; --json shows all of them
WIDE = 240  # columns where there is no terminal: nothing is folded for a program that reads lines
STATES = {
    "handled": "green", "sent": "green", "ACTIVE": "green", "completed": "green", "ok": "green",
    "received": "yellow", "queued": "yellow", "sending": "yellow", "warn": "yellow", "pending": "yellow",
    "SUSPENDED": "yellow", "doubt": "bold red", "parked": "bold red", "failed": "bold red", "fail": "bold red",
    "denied": "red", "reversed": "red",
}  # fmt: skip


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    typer.echo(orjson.dumps(value).decode())


def json_lines(value: Any) -> str:
    """JSON for people to read."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def print_line(text: str = "") -> None:
    """A line on stdout. What strangers wrote must not move a terminal's cursor."""
    typer.echo(strip_controls(text))


def print_note(text: str) -> None:
    """A line for people on stderr, beside the answer."""
    typer.echo(strip_controls(text), err=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table without its empty columns. `numbers` are the headings of columns that are set to the right.

    A terminal that is too narrow for the table shows each row on its own, one line for each value.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    used = [place for place in range(len(headings)) if any(row[place] for row in cells)]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for place in used:
        _add_column(drawn, headings[place], [row[place] for row in cells], is_number=headings[place] in numbers)
    for row in cells:
        drawn.add_row(*(row[place] for place in used))
    shown = console()
    if Measurement.get(shown, shown.options.update(max_width=WIDE), drawn).minimum <= shown.width:
        shown.print(drawn)
        return
    for number, row in enumerate(cells):
        if number:
            print_line()
        print_pairs({headings[place]: row[place] for place in used if row[place]})


def _add_column(drawn: Table, heading: str, cells: Sequence[Text], *, is_number: bool) -> None:
    """Add a column. Ids, addresses and other single words are never folded, because people copy them."""
    is_whole = heading in WHOLE or not any(" " in cell.plain for cell in cells)
    width = max((cell.cell_len for cell in cells), default=0) if is_whole else None
    drawn.add_column(
        heading, justify="right" if is_number else "left", overflow="fold", no_wrap=is_whole, min_width=width
    )


def print_pairs(values: Mapping[str, object]) -> None:
    """What a thing is, a line for each: its name and its value. None is left out."""
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None:
            drawn.add_row(name, _cell(value))
    console().print(drawn)


def print_more(total: int, shown: int) -> None:
    """Say how many rows were left out."""
    if total > shown:
        print_line(f"… and {total - shown:,} more; --limit {total} or --json shows them all")


def format_moment(at: datetime | None, locale: str) -> str:
    """A time for people, to the minute, in UTC."""
    return f"{format_date(at, 'medium', locale)} {format_time(at, 'short', locale=locale)} UTC" if at else ""


def format_day(at: datetime | None, locale: str) -> str:
    """A day for people, in UTC."""
    return format_date(at, "medium", locale=locale) if at else ""


def format_stamp(text: str | None) -> str:
    """A time of our JSON, to the minute: `2026-03-01 10:00`."""
    return f"{text[:10]} {text[11:16]}" if text else ""


def parse_stamp(text: str | None) -> datetime | None:
    """A time of our JSON."""
    return datetime.fromisoformat(text) if text else None


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A progress bar on a terminal's stderr; call what it gives with how much was done. Elsewhere nothing is shown."""
    shown = Console(stderr=True)
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def console() -> Console:
    """stdout, as wide as its terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDE)


def strip_controls(text: str) -> str:
    """Text without control and direction characters, except line ends and tabs."""
    if text.isprintable():
        return text
    return "".join("�" if character not in "\n\t" and _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    text = "" if value is None else strip_controls(str(value))
    return Text(text, style=STATES.get(text, ""))

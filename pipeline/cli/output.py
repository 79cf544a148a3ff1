"""How a command answers: JSON for programs, tables and lines for people. Progress goes to stderr."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import orjson
import typer

Advance = Callable[[int], None]  # tells a progress bar how much more was done
WHOLE = frozenset({"id", "state", "status", "received (UTC)", "since (UTC)"})  # never folded, as single words are not
SHOWN = 50  # rows of a table; who wants all of them asks for JSON
LONG = 20  # columns; a longer word among others may be broken
GAP = 3  # columns between two columns of a table
WIDE = 240  # columns where no terminal tells its own: nothing is folded for a program that reads lines
STATES = {
    "handled": "green", "sent": "green", "ACTIVE": "green", "completed": "green", "ok": "green",
    "received": "yellow", "queued": "yellow", "sending": "yellow", "warn": "yellow", "pending": "yellow",
    "SUSPENDED": "yellow", "doubt": "bold red", "parked": "bold red", "failed": "bold red", "fail": "bold red",
    "denied": "red", "reversed": "red",
}  # fmt: skip


def json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    typer.echo(orjson.dumps(value).decode())


def lines(value: Any) -> str:
    """JSON for people to read."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def line(text: str = "") -> None:
    """A line on stdout. What strangers wrote must not move a terminal's cursor."""
    typer.echo(visible(text))


def note(text: str) -> None:
    """A line for people on stderr, beside the answer."""
    typer.echo(visible(text), err=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """A table on stdout, without columns that are empty. `numbers` are the headings set to the right.

    A terminal too narrow for it is given each row on its own, a line for each value.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    used = [place for place in range(len(headings)) if any(row[place].plain for row in cells)]
    headings, cells = [headings[place] for place in used], [[row[place] for place in used] for row in cells]
    whole = [_is_whole(*column) for column in zip(headings, *cells, strict=True)]
    shown = console()
    if _narrowest(headings, cells, whole) <= shown.width:
        shown.print(_drawn(headings, cells, whole, numbers))
        return
    for number, row in enumerate(cells):
        if number:
            line()
        pairs({heading: cell for heading, cell in zip(headings, row, strict=True) if cell.plain})


def _drawn(
    headings: Sequence[str], cells: Iterable[Sequence[Any]], whole: Sequence[bool], numbers: Sequence[str]
) -> Any:
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading, is_whole in zip(headings, whole, strict=True):
        justify: Literal["left", "right"] = "right" if heading in numbers else "left"
        drawn.add_column(heading, justify=justify, overflow="fold", no_wrap=is_whole)
    for row in cells:
        drawn.add_row(*row)
    return drawn


def _is_whole(heading: str, *cells: Any) -> bool:
    """Whether a column is never folded: ids, addresses and other single words are copied."""
    return heading in WHOLE or not any(" " in cell.plain for cell in cells)


def _narrowest(headings: Sequence[str], cells: Sequence[Sequence[Any]], whole: Sequence[bool]) -> int:
    """How many columns of a terminal a table needs; of prose, a word that is very long may be broken."""
    from rich.cells import cell_len

    needed = []
    for heading, is_whole, *column in zip(headings, whole, *cells, strict=True):
        texts = [heading, *(cell.plain for cell in column)]
        words = [min(cell_len(word), LONG) for text in texts for word in text.split()]
        needed.append(max(map(cell_len, texts)) if is_whole else max(words))
    return sum(needed) + GAP * (len(needed) - 1)


def pairs(values: Mapping[str, object]) -> None:
    """What a thing is, a line for each: its name and its value. None is left out."""
    from rich.table import Table

    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None:
            drawn.add_row(name, _cell(value))
    console().print(drawn)


def more(total: int, shown: int) -> None:
    """Say how many rows were left out."""
    if total > shown:
        line(f"… and {total - shown:,} more; --limit {total} or --json shows them all")


def moment(at: datetime | None, locale: str) -> str:
    """A time for people, to the minute, in UTC."""
    from babel.dates import format_date, format_time

    return f"{format_date(at, 'medium', locale)} {format_time(at, 'short', locale=locale)} UTC" if at else ""


def day(at: datetime | None, locale: str) -> str:
    """A day for people, in UTC."""
    from babel.dates import format_date

    return format_date(at, "medium", locale=locale) if at else ""


def stamp(text: str | None) -> str:
    """A time of our JSON, to the minute: `2026-03-01 10:00`."""
    return f"{text[:10]} {text[11:16]}" if text else ""


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A progress bar on a terminal's stderr; call what it gives with how much was done. Elsewhere nothing is shown."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

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


def console() -> Any:
    """stdout, as wide as its terminal."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDE)


def visible(text: str) -> str:
    """Text without control and direction characters, except line ends and tabs."""
    if text.isprintable():
        return text
    return "".join("�" if character not in "\n\t" and _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"


def _cell(value: object) -> Any:
    from rich.text import Text

    if isinstance(value, Text):
        return value
    text = "" if value is None else visible(str(value))
    return Text(text, style=STATES.get(text, ""))

"""`smt-billing events` and `smt-billing parked`: the inbox, and its events that need a manual decision."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import output, read_audit
from pipeline.cli.context import CommandContext, Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.read_audit import Purpose
from pipeline.cli.time_options import parse_time_option
from pipeline.db.models import Event
from pipeline.errors import UsageError
from pipeline.inbox import store
from pipeline.inbox.file_import import find_files, import_files
from pipeline.queries import events
from pipeline.queries.listing import ListQuery, count

app, parked = group(), group()

State = Literal["received", "handled", "ignored", "parked"]
Source = Literal["webhook", "import", "read"]
HEADINGS = ("id", "type", "state", "received (UTC)", "reason")
AGAIN = "a running worker takes them up within a second or two; or run: smt-billing run --until-idle"


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only events in this state.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this type, as PAYMENT.SALE.COMPLETED.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only those that came this way.")] = None,
    since: Annotated[str | None, typer.Option(help="Only received then or later: 2026-03-01, or a time.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List the events that were received, the newest first.

    JSON: one array of objects with id, type, state, source, received_at and reason.
    """
    where = {"state": state, "type": type_, "source": source}
    _show_list(context_of(context), ListQuery(where, parse_time_option(since, "--since"), limit), json)


@app.command()
def show(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The event's id.")],
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """Show one event: the result of its signature check, its facts, its body, and the status changes it made."""
    call = context_of(context)
    with call.decryptor() as lens:
        found = events.event(lens, id)
    if found is None:
        raise UsageError(f"there is no event {id}; see: smt-billing events list")
    read_audit.record_read(call, "events show", purpose, found["label"])
    if json:
        output.print_json(found)
    else:
        _show(found)


@app.command()
def replay(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Ids of parked or ignored events.")],
    json: Json = False,
) -> None:
    """Handle parked or ignored events again, as after a handler was fixed. Exit 1 if one of them cannot be."""
    _replay(context_of(context), ids, json)


@app.command("import")
def import_(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Files, folders (their *.json, also deeper), or - for stdin.")],
    json: Json = False,
) -> None:
    """Import events as read from PayPal's API or dashboard, through the same inbox as webhooks.

    A file holds one event, an array of them, or the API's answer with them under "events". Known ones change nothing;
    another body under a known id is parked as a conflict. They are handled by the next worker. Exit 1 if a file or
    an event could not be read; all others are imported.
    """
    call = context_of(context)
    paths = find_files(files)
    with output.progress("events", None) as done:
        tally = import_files(call.database, call.settings.master_key, call.clock, paths, done)
    if json:
        output.print_json(tally.as_json())
    else:
        for name, reason in tally.refused:
            output.print_note(f"{name}: {reason}")
        refused = f", {len(tally.refused)} refused" if tally.refused else ""
        output.print_line(
            f"{tally.stored} stored, {tally.duplicates} known already, {tally.conflicts} in conflict{refused}"
        )
    if tally.refused:
        raise typer.Exit(1)


@parked.command("list")
def list_parked(context: typer.Context, limit: Limit = None, json: Json = False) -> None:
    """List the parked events with the reason of each, the newest first. JSON as in: events list."""
    _show_list(context_of(context), ListQuery({"state": "parked"}, limit=limit), json)


@parked.command()
def retry(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of parked events.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are parked, but for those that never can be.")] = False,
    json: Json = False,
) -> None:
    """Handle parked events again, once their reason is fixed. Exit 1 if one of them cannot be."""
    if bool(ids) == every:
        raise UsageError("name the parked events to retry, or say --all")
    call = context_of(context)
    if not ids:
        with call.database.reading() as session:
            ids = store.parked_for_retry(session)
    _replay(call, ids, json)


@parked.command()
def ignore(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Ids of parked events.")],
    json: Json = False,
) -> None:
    """Dismiss parked events that you have looked at. They stay, with their reason, and change nothing.

    JSON: an array of objects with id and ignored. Exit 1 if one of them was not parked.
    """
    call = context_of(context)
    with call.database.transaction() as session:
        put_away = set(store.dismiss(session, ids, call.clock.now()))
    if json:
        output.print_json([{"id": id, "ignored": id in put_away} for id in dict.fromkeys(ids)])
    else:
        for id in dict.fromkeys(ids):
            if id not in put_away:
                output.print_note(f"{id}: it is not parked; see: smt-billing parked list")
        output.print_line(f"{len(put_away)} put away")
    if len(put_away) < len(set(ids)):
        raise typer.Exit(1)


def _show_list(context: CommandContext, asked: ListQuery, json: bool) -> None:
    with context.database.reading() as session:
        if json:
            output.print_json(list(events.events(session, asked)))
            return
        shown = list(events.events(session, replace(asked, limit=asked.limit or output.SHOWN)))
        total = count(session, Event, Event.received_at, asked)
    if not shown:
        output.print_line("no such events")
        return
    output.print_table(HEADINGS, [_row(found) for found in shown])
    output.print_more(total if asked.limit is None else 0, len(shown))


def _replay(context: CommandContext, ids: list[str], json: bool) -> None:
    """Put these events back, and say for each what became of it."""
    with context.database.transaction() as session:
        put_back = set(store.retry(session, ids, context.clock.now()))
        refused = {id: events.retry_refusal(session, id) for id in dict.fromkeys(ids) if id not in put_back}
    if json:
        output.print_json(
            [{"id": id, "replayed": id in put_back, "reason": refused.get(id)} for id in dict.fromkeys(ids)]
        )
    else:
        for id, reason in refused.items():
            output.print_note(f"{id}: {reason}")
        output.print_line(f"{len(put_back)} put back" + (f"; {AGAIN}" if put_back else ""))
    if refused:
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    parts = ("facts", "person", "body")
    output.print_pairs({name: found[name] for name in found if name not in (*parts, "changes", "erased")})
    for heading in parts:
        if found[heading]:
            output.print_line(f"\n{heading}\n{_text(found[heading])}")
    if found["erased"]:
        output.print_line("\nbody\nits key has been erased: nobody can read it any more")
    if found["changes"]:
        output.print_line("\nchanges")
        columns = ("subscription", "at", "old", "new", "reason")
        output.print_table(columns, [[change[name] for name in columns] for change in found["changes"]])


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    return found["id"], found["type"], found["state"], output.format_stamp(found["received_at"]), found["reason"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else output.json_lines(value)

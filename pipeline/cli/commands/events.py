"""`smt-billing events` and `smt-billing parked`: list, show, import and retry the events in the inbox."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from sqlalchemy.orm import Session

from pipeline.cli import output, read_audit
from pipeline.cli.context import CommandContext, Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.read_audit import Purpose
from pipeline.cli.time_options import Until, parse_period
from pipeline.db.models import Event
from pipeline.errors import UsageError
from pipeline.inbox import store
from pipeline.inbox.file_import import find_files, import_files
from pipeline.operations.event_kinds import event_kinds
from pipeline.queries import events
from pipeline.queries.listing import ListQuery, count

app, parked = group(), group()

State = Literal["received", "handled", "ignored", "parked"]
Source = Literal["webhook", "import", "read", "history"]
HEADINGS = ("id", "type", "state", "received (UTC)", "reason")
NEXT_STEP = "a running worker processes them within two seconds; or run: smt-billing run --until-idle"


@app.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[State | None, typer.Option(case_sensitive=False, help="Only events in this state.")] = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Only events of this type, such as PAYMENT.SALE.COMPLETED.")
    ] = None,
    source: Annotated[
        Source | None,
        typer.Option(
            case_sensitive=False,
            help="Only events from this source; read means an answer to a look-up, history an import of what happened before.",
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only events received since this day or time, such as 30d or 2026-03-01.")
    ] = None,
    until: Until = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List received events, the newest first.

    JSON: one array of objects with id, type, state, source, received_at and reason.
    """
    where = {"state": state, "type": type_ and type_.upper(), "source": source}  # PayPal writes all types in capitals
    context = context_of(ctx)
    period = parse_period(since, until, context.clock.now())
    _show_list(context, ListQuery(where, period.since, limit, until=period.until), json)


@app.command()
def show(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="The event's id.")],
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """Show one event: the result of its signature check, its facts, its body, and the status changes that it caused."""
    context = context_of(ctx)
    with context.decryptor() as decryptor:
        found = events.event(decryptor, id)
    if found is None:
        raise UsageError(f"there is no event {id}; see: smt-billing events list")
    read_audit.record_read(context, "events show", purpose, found["label"])
    if json:
        output.print_json(found)
    else:
        _show(found)


@app.command()
def kinds(ctx: typer.Context, json: Json = False) -> None:
    """List the event types that this program knows: what each does, or why it is kept without effect.

    The webhook subscribes to the types that have a handler; compare PayPal's side with: smt-billing paypal webhook check.
    JSON: one array of objects with type, is_handled, is_subscribed and about.
    """
    found = list(event_kinds(context_of(ctx).handlers()))
    if json:
        output.print_json(found)
        return
    rows = [(each["type"], "yes" if each["is_subscribed"] else "", each["about"]) for each in found]
    output.print_table(("type", "webhook", "what it does, or why it is kept"), rows)


@app.command()
def replay(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Ids of parked or ignored events.")],
    json: Json = False,
) -> None:
    """Process parked or ignored events again, for example after a handler was fixed.

    Exit 1 if an event is refused, 2 if there is no event with one of these ids; then none is processed again.
    """
    _replay(context_of(ctx), ids, json)


@app.command("import")
def import_(
    ctx: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(help="Files, folders (all *.json below them), or - for standard input.")
    ],
    json: Json = False,
) -> None:
    """Import events from PayPal's API or dashboard into the inbox that webhooks use too.

    A file contains one event, an array of events, or the API's answer with an array named "events". An event that is
    known already changes nothing; a different body under a known id is parked as a conflict. A worker processes the events.
    Exit 1 if a file or an event could not be read; all other events are imported.
    """
    context = context_of(ctx)
    paths = find_files(files)
    with output.progress("events", None) as done:
        tally = import_files(context.database, context.settings.master_key, context.clock, paths, done)
    if json:
        output.print_json(tally.as_json())
    else:
        for name, reason in tally.refused:
            output.print_note(f"{name}: {reason}")
        refused = f", {len(tally.refused)} refused" if tally.refused else ""
        output.print_line(f"{tally.stored} stored, {tally.duplicates} duplicates, {tally.conflicts} conflicts{refused}")
    if tally.refused:
        raise typer.Exit(1)


@parked.command("list")
def list_parked(ctx: typer.Context, limit: Limit = None, json: Json = False) -> None:
    """List parked events with their reasons, the newest first. The JSON is that of: events list."""
    _show_list(context_of(ctx), ListQuery({"state": "parked"}, limit=limit), json)


@parked.command()
def retry(
    ctx: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of parked events.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All parked events, except conflicts and events that cannot be parsed.")
    ] = False,
    json: Json = False,
) -> None:
    """Process parked events again, once the cause is fixed.

    Exit 1 if an event is refused, 2 if there is no event with one of these ids; then none is processed again.
    """
    if bool(ids) == every:
        raise UsageError("give the ids of parked events, or --all")
    context = context_of(ctx)
    if not ids:
        with context.database.reading() as session:
            ids = store.parked_for_retry(session)
    _replay(context, ids, json)


@parked.command()
def ignore(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Ids of parked events.")],
    json: Json = False,
) -> None:
    """Dismiss reviewed events. They stay visible, with their reasons, and change nothing.

    Exit 1 if an event was not parked, 2 if there is no event with one of these ids; then none is dismissed.
    JSON: an array of objects with id and ignored.
    """
    context = context_of(ctx)
    with context.database.transaction() as session:
        _require_known(session, ids)
        dismissed = set(store.dismiss(session, ids, context.clock.now()))
    if json:
        output.print_json([{"id": id, "ignored": id in dismissed} for id in dict.fromkeys(ids)])
    else:
        for id in dict.fromkeys(ids):
            if id not in dismissed:
                output.print_note(f"{id}: it is not parked; see: smt-billing parked list")
        output.print_line(f"{len(dismissed)} dismissed")
    if len(dismissed) < len(set(ids)):
        raise typer.Exit(1)


def _show_list(context: CommandContext, query: ListQuery, json: bool) -> None:
    with context.database.reading() as session:
        if json:
            output.print_json(list(events.events(session, query)))
            return
        shown = list(events.events(session, replace(query, limit=query.limit or output.SHOWN)))
        total = count(session, Event, Event.received_at, query)
    if not shown:
        output.print_line("no such events")
        return
    output.print_table(HEADINGS, [_row(found) for found in shown])
    output.print_more(total if query.limit is None else 0, len(shown))


def _replay(context: CommandContext, ids: list[str], json: bool) -> None:
    """Queue these events for processing, and print the result for each."""
    with context.database.transaction() as session:
        _require_known(session, ids)
        queued = set(store.retry(session, ids, context.clock.now()))
        refused = {id: events.retry_refusal(session, id) for id in dict.fromkeys(ids) if id not in queued}
    if json:
        output.print_json(
            [{"id": id, "replayed": id in queued, "reason": refused.get(id)} for id in dict.fromkeys(ids)]
        )
    else:
        for id, reason in refused.items():
            output.print_note(f"{id}: {reason}")
        output.print_line(f"{len(queued)} queued" + (f"; {NEXT_STEP}" if queued else ""))
    if refused:
        raise typer.Exit(1)


def _require_known(session: Session, ids: list[str]) -> None:
    """Raise UsageError if there is no event with one of these ids: a typing error must not pass as a refusal."""
    if unknown := [id for id in dict.fromkeys(ids) if session.get(Event, id) is None]:
        raise UsageError(f"there is no event {', '.join(unknown)}; see: smt-billing events list")


def _show(found: dict[str, Any]) -> None:
    sections = ("facts", "person", "body")
    output.print_pairs({name: found[name] for name in found if name not in (*sections, "changes", "erased")})
    for heading in sections:
        if found[heading]:
            output.print_line(f"\n{heading}\n{_text(found[heading])}")
    if found["erased"]:
        output.print_line("\nbody\nerased: its key was destroyed, so it cannot be decrypted")
    if found["changes"]:
        output.print_line("\nchanges")
        columns = ("subscription", "at", "old", "new", "reason")
        output.print_table(columns, [[change[name] for name in columns] for change in found["changes"]])


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    return found["id"], found["type"], found["state"], output.format_stamp(found["received_at"]), found["reason"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else output.json_lines(value)

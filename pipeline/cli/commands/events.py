"""`smt-billing events`: the inbox, as people and programs see it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import output as say
from pipeline.cli import read_audit as reading
from pipeline.cli.context import Call, Json, Limit, of
from pipeline.cli.read_audit import Purpose
from pipeline.errors import Wrong

app = typer.Typer(help="The events PayPal sent, and what became of them.", no_args_is_help=True)

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
    from pipeline.cli.time_options import read
    from pipeline.queries.listing import Asked

    where = {"state": state, "type": type_, "source": source}
    show_list(of(context), Asked(where, read(since, "--since"), limit), json)


def show_list(call: Call, asked: Any, json: bool) -> None:
    """A list of events, as the `looks.Asked` says. `parked list` is one."""
    from dataclasses import replace

    from pipeline.db.models import Event
    from pipeline.queries import listing as looks

    with call.database.reading() as session:
        if json:
            say.json(list(looks.events(session, asked)))
            return
        shown = list(looks.events(session, replace(asked, limit=asked.limit or say.SHOWN)))
        total = looks.count(session, Event, Event.received_at, asked)
    if not shown:
        say.line("no such events")
        return
    say.table(HEADINGS, [_row(found) for found in shown])
    say.more(total if asked.limit is None else 0, len(shown))


@app.command()
def show(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The event's id.")],
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """Show one event: what was found about its signature, its facts, its body, and the moves it made."""
    from pipeline.queries import listing as looks

    call = of(context)
    with call.database.reading() as session:
        lens = looks.Lens(session, lambda: call.master, call.clock.now())
        found = looks.event(lens, id)
    if found is None:
        raise Wrong(f"there is no event {id}; see: smt-billing events list")
    reading.note(call, "events show", purpose, found["label"])
    if json:
        say.json(found)
        return
    for_people = {name: found[name] for name in found if name not in ("facts", "person", "body", "changes", "erased")}
    say.pairs(for_people)
    for heading in ("facts", "person", "body"):
        if found[heading]:
            say.line(f"\n{heading}\n{_text(found[heading])}")
    if found["erased"]:
        say.line("\nbody\nits key has been erased: nobody can read it any more")
    if found["changes"]:
        say.line("\nchanges")
        columns = ("subscription", "at", "old", "new", "reason")
        say.table(columns, [[change[name] for name in columns] for change in found["changes"]])


@app.command()
def replay(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Ids of parked or ignored events.")],
    json: Json = False,
) -> None:
    """Have parked or ignored events handled again, as after a mended handler. Exit 1 if one of them cannot be."""
    replay_all(of(context), ids, json)


def replay_all(call: Call, ids: list[str], json: bool) -> None:
    """Put these events back, and say for each what became of it. `parked retry` does the same."""
    from pipeline.inbox import store as inbox
    from pipeline.queries import listing as looks

    with call.database.transaction() as session:
        put_back = set(inbox.retry(session, ids, call.clock.now()))
        refused = {id: looks.why_not_again(session, id) for id in dict.fromkeys(ids) if id not in put_back}
    if json:
        say.json([{"id": id, "replayed": id in put_back, "reason": refused.get(id)} for id in dict.fromkeys(ids)])
    else:
        for id, reason in refused.items():
            say.note(f"{id}: {reason}")
        say.line(f"{len(put_back)} put back" + (f"; {AGAIN}" if put_back else ""))
    if refused:
        raise typer.Exit(1)


@app.command("import")
def import_(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Files, folders (their *.json, also deeper), or - for stdin.")],
    json: Json = False,
) -> None:
    """Take in events as read from PayPal's API or dashboard, through the same inbox as webhooks.

    A file holds one event, an array of them, or the API's answer with them under "events". Known ones change nothing;
    another body under a known id is parked as a conflict. They are handled by the next worker. Exit 1 if a file or
    an event could not be read; all others are taken in.
    """
    from pipeline.inbox.file_import import find, take_in

    call = of(context)
    paths = find(files)
    with say.progress("events", None) as done:
        tally = take_in(call.database, call.settings.master_key, call.clock, paths, done)
    if json:
        say.json(tally.as_json())
    else:
        for name, reason in tally.refused:
            say.note(f"{name}: {reason}")
        refused = f", {len(tally.refused)} refused" if tally.refused else ""
        say.line(f"{tally.stored} stored, {tally.duplicates} known already, {tally.conflicts} in conflict{refused}")
    if tally.refused:
        raise typer.Exit(1)


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    return found["id"], found["type"], found["state"], say.stamp(found["received_at"]), found["reason"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else say.lines(value)

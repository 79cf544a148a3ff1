"""`smt-billing parked`: events that wait for a person."""

from typing import Annotated

import typer

from pipeline.cli import output as say
from pipeline.cli.commands import events
from pipeline.cli.context import Json, Limit, of
from pipeline.errors import Wrong

app = typer.Typer(help="Events that nobody but a person can decide about.", no_args_is_help=True)


@app.command("list")
def list_(context: typer.Context, limit: Limit = None, json: Json = False) -> None:
    """List the parked events with the reason of each, the newest first. JSON as in: events list."""
    from pipeline.queries.listing import Asked

    events.show_list(of(context), Asked({"state": "parked"}, limit=limit), json)


@app.command()
def retry(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of parked events.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are parked, but for those that never can be.")] = False,
    json: Json = False,
) -> None:
    """Have parked events handled again, once their reason is mended. Exit 1 if one of them cannot be."""
    if bool(ids) == every:
        raise Wrong("name the parked events to retry, or say --all")
    events.replay_all(of(context), ids or _all_parked(context), json)


@app.command()
def ignore(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Ids of parked events.")],
    json: Json = False,
) -> None:
    """Put parked events away that you have looked at. They stay, with their reason, and change nothing.

    JSON: an array of objects with id and ignored. Exit 1 if one of them was not parked.
    """
    from pipeline.inbox import store as inbox

    call = of(context)
    with call.database.transaction() as session:
        put_away = set(inbox.put_away(session, ids, call.clock.now()))
    if json:
        say.json([{"id": id, "ignored": id in put_away} for id in dict.fromkeys(ids)])
    else:
        for id in dict.fromkeys(ids):
            if id not in put_away:
                say.note(f"{id}: it is not parked; see: smt-billing parked list")
        say.line(f"{len(put_away)} put away")
    if len(put_away) < len(set(ids)):
        raise typer.Exit(1)


def _all_parked(context: typer.Context) -> list[str]:
    from pipeline.inbox import store as inbox

    with of(context).database.reading() as session:
        return inbox.parked_for_retry(session)

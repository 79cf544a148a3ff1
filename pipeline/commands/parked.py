"""`smt-billing parked`: events that wait for a person."""

from typing import Annotated

import typer

from pipeline.commands import events
from pipeline.commands.call import Json, Limit, Wrong, of

app = typer.Typer(help="Events that nobody but a person can decide about.", no_args_is_help=True)


@app.command("list")
def list_(context: typer.Context, limit: Limit = None, json: Json = False) -> None:
    """List the parked events with the reason of each, the newest first. JSON as in: events list."""
    from pipeline.commands.looks import Asked

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


def _all_parked(context: typer.Context) -> list[str]:
    from pipeline.commands import looks

    with of(context).database.reading() as session:
        return looks.parked_for_retry(session)

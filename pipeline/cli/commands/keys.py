"""`smt-billing keys`: the master key."""

import typer

from pipeline.cli import output as say
from pipeline.cli.context import Json, of

app = typer.Typer(help="The keys that personal data is sealed with.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The keys that personal data is sealed with."""


@app.command()
def rotate(context: typer.Context, json: Json = False) -> None:
    """Replace the master key, while everything runs, and destroy the old one; after an erasure that completes it.

    Killed anywhere, it is finished by calling it again. With backups set up, the new key is in the newest file of keys
    before the old one goes; without them, copy it to where yours is kept: the old copy opens nothing any more.

    JSON: an object with keys, old, new and erasures_completed.
    """
    from pipeline.app import maintenance as leaving
    from pipeline.app.from_settings import has_shelf

    call = of(context)
    _ = call.database, call.master  # there are tables and a key, or the command says what is missing
    done = leaving.rotate(call.parts)
    if json:
        told = {"keys": done.keys, "old": done.old_id, "new": done.new_id, "erasures_completed": done.completed}
        say.json(told)
        return
    say.line(f"the master key is replaced: {done.keys} keys wrapped anew, {done.completed} erasures complete")
    if not has_shelf(call.settings):
        say.note(f"now copy {call.settings.master_key} to where you keep it; the old copy opens nothing any more")

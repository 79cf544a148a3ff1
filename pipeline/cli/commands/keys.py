"""`smt-billing keys`: the master key."""

import typer

from pipeline.app import maintenance
from pipeline.app.from_settings import has_backup_store
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group

app = group()


@app.command()
def rotate(context: typer.Context, json: Json = False) -> None:
    """Replace the master key, while everything runs, and destroy the old one; after an erasure that completes it.

    Killed anywhere, it is finished by calling it again. With backups set up, the new key is in the newest file of keys
    before the old one goes; without them, copy it to where yours is kept: the old copy opens nothing any more.

    JSON: an object with keys, old, new and erasures_completed.
    """
    call = context_of(context)
    _ = call.database, call.master_key  # there are tables and a key, or the command says what is missing
    done = maintenance.rotate_master_key(container_of(call))
    if json:
        told = {"keys": done.keys, "old": done.old_id, "new": done.new_id, "erasures_completed": done.completed}
        output.print_json(told)
        return
    output.print_line(f"the master key is replaced: {done.keys} keys wrapped anew, {done.completed} erasures complete")
    if not has_backup_store(call.settings):
        output.print_note(
            f"now copy {call.settings.master_key} to where you keep it; the old copy opens nothing any more"
        )

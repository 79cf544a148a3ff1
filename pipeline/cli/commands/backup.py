"""`smt-billing backup`: copies of everything, and back."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.app import from_settings
from pipeline.cli import output
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.operations.backup.store import new_identity

app = group()


@app.command()
def create(context: typer.Context, json: Json = False) -> None:
    """Copy database and keys to SMT_BACKUP_DIR, encrypted for SMT_BACKUP_RECIPIENT, while everything runs.

    Older copies go: those of the database after SMT_BACKUP_DAYS, those of keys after SMT_BACKUP_KEYS_DAYS. JSON: an object
    with data and keys.
    """
    call = context_of(context)
    _ = call.master_key  # a backup without a master key would open nothing
    made = from_settings.backup_store(call.settings).create(call.database, call.settings.master_key, call.clock.now())
    if json:
        output.print_json({"data": str(made.data), "keys": str(made.keys)})
    else:
        output.print_line(f"{made.data} ({made.data.stat().st_size:,} bytes)")
        output.print_line(f"{made.keys} ({made.keys.stat().st_size:,} bytes)")


@app.command()
def restore(
    context: typer.Context,
    identity: Annotated[Path, typer.Option("--identity", help="The file with the age identity.")],
    data: Annotated[Path | None, typer.Option("--data", help="This copy of the database, not the newest.")] = None,
    json: Json = False,
) -> None:
    """Bring the newest backup in SMT_BACKUP_DIR back into an empty database, with the newest keys.

    Who was erased since the copy was made is erased once more, before anything can start on it. The master key is put in
    its place if there is none. JSON: an object with data, keys and erased_again.
    """
    call = context_of(context)
    shelf, master = from_settings.backup_store(call.settings), call.settings.master_key
    with output.progress("restoring", None):
        done = shelf.restore(call.unchecked_database, master, identity, call.clock.now(), data=data)
    if json:
        output.print_json({"data": str(done.data), "keys": str(done.keys), "erased_again": done.erased_again})
        return
    output.print_line(f"restored {done.data.name} with {done.keys.name}; erased once more: {done.erased_again}")
    output.print_note("bring the tables up to date, then start: smt-billing db upgrade")


@app.command()
def identity(file: Annotated[Path, typer.Argument(help="The file to write; keep it away from this machine.")]) -> None:
    """Make an age identity: the file opens backups, the recipient that is printed only makes them."""
    output.print_line(f"SMT_BACKUP_RECIPIENT={new_identity(file)}")
    output.print_note(
        f"keep {file} somewhere else: without it no backup opens, with it and the backups everything can be read"
    )

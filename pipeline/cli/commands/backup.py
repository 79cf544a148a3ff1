"""`smt-billing backup`: create and restore encrypted backups."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.app import from_settings
from pipeline.cli import output
from pipeline.cli.confirmation import Yes, confirm
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.crypto.signing import encode_public
from pipeline.operations.backup.signatures import BackupSigner
from pipeline.operations.backup.store import SIGNER_LINE, new_identity

app = group()


@app.command()
def create(ctx: typer.Context, json: Json = False) -> None:
    """Copy the database and the keys to SMT_BACKUP_DIR, encrypted for SMT_BACKUP_RECIPIENT and signed. Roles may keep running.

    Deletes copies of the database that are older than SMT_BACKUP_DAYS, and copies of the keys that are older than
    SMT_BACKUP_KEYS_DAYS. JSON: an object with data and keys.
    """
    context = context_of(ctx)
    _ = context.master_key  # a backup without the master key could not be decrypted
    made = from_settings.backup_store(context.settings).create(
        context.database, context.settings.master_key, context.clock.now()
    )
    if json:
        output.print_json({"data": str(made.data), "keys": str(made.keys)})
    else:
        output.print_line(f"{made.data} ({made.data.stat().st_size:,} bytes)")
        output.print_line(f"{made.keys} ({made.keys.stat().st_size:,} bytes)")


@app.command()
def restore(
    ctx: typer.Context,
    identity: Annotated[Path, typer.Option("--identity", help="File with the age identity.")],
    signer: Annotated[
        str | None,
        typer.Option(
            "--signer", help="Key that `backup signer` prints; default: the line `# signer:` of the identity's file."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Copy of the database to restore; default: the newest.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Restore the newest backup in SMT_BACKUP_DIR, with the newest keys, into an empty database. Asks for confirmation.

    Refuses files that are not signed with the key --signer, or that were changed, shortened or renamed.
    Repeats all erasures since that backup before any role can start. Restores the master key if it does not exist.
    JSON: an object with data, keys and erased_again.
    """
    context = context_of(ctx)
    store, master = from_settings.backup_store(context.settings, create=False), context.settings.master_key
    confirm("This restores a backup into the database, which must be empty.", yes=yes)
    with output.progress("restoring", None):
        done = store.restore(
            context.unchecked_database, master, identity, context.clock.now(), signer=signer, data=data
        )
    if json:
        output.print_json({"data": str(done.data), "keys": str(done.keys), "erased_again": done.erased_again})
        return
    output.print_line(f"restored {done.data.name} with {done.keys.name}; erasures repeated: {done.erased_again}")
    output.print_note("now upgrade the tables, then start the roles: smt-billing db upgrade")


@app.command()
def signer(ctx: typer.Context) -> None:
    """Print the key that verifies the backups of this installation. Add the line to the identity's file."""
    context = context_of(ctx)
    found = BackupSigner.open(context.database, context.settings.master_key, context.clock.now())
    output.print_line(f"{SIGNER_LINE}{encode_public(found.public)}")
    output.print_note(
        "add this line to the file of the age identity: a restore accepts only backups that this key signed"
    )


@app.command()
def identity(file: Annotated[Path, typer.Argument(help="File to write; keep it on another machine.")]) -> None:
    """Create an age identity. Its file decrypts backups; the printed recipient only encrypts them."""
    output.print_line(f"SMT_BACKUP_RECIPIENT={new_identity(file)}")
    output.print_note(
        f"keep {file} on another machine: no backup can be decrypted without it, and it decrypts all of them"
    )

"""`smt-billing keys`: replace the master key."""

import typer

from pipeline.app import maintenance
from pipeline.app.from_settings import has_backup_store
from pipeline.cli import output
from pipeline.cli.confirmation import Yes, confirm
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group

app = group()


@app.command()
def rotate(ctx: typer.Context, yes: Yes = False, json: Json = False) -> None:
    """Replace the master key and destroy the old one. Asks for confirmation. This completes pending erasures.

    Roles may keep running.

    If interrupted, run it again to resume. With backups configured, a copy of the new key is in the backup folder before
    the old key is destroyed. Without backups, copy the new key to where you keep it: the old copy decrypts nothing any more.

    JSON: an object with keys, old, new and erasures_completed.
    """
    context = context_of(ctx)
    _ = context.database, context.master_key  # raises SettingsError or MasterKeyError if one of them does not exist
    confirm("This destroys the current master key: copies of it decrypt nothing any more.", yes=yes)
    done = maintenance.rotate_master_key(container_of(context))
    if json:
        output.print_json(
            {"keys": done.keys, "old": done.old_id, "new": done.new_id, "erasures_completed": done.completed}
        )
        return
    output.print_line(
        f"replaced the master key: {done.keys} data keys wrapped again, {done.completed} erasures complete"
    )
    if not has_backup_store(context.settings):
        output.print_note(
            f"now copy {context.settings.master_key} to where you keep it; the old copy decrypts nothing any more"
        )

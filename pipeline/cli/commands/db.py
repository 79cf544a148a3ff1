"""`smt-billing db`: the tables and their revisions."""

import typer

from pipeline.cli import output
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.db import migrations

app = group()


@app.command()
def upgrade(context: typer.Context, json: Json = False) -> None:
    """Upgrade the tables to the revision of this version. Existing data stays; safe to repeat."""
    database = context_of(context).unchecked_database
    before = migrations.current(database)
    migrations.upgrade(database)
    after = migrations.current(database)
    if json:
        output.print_json({"from": before, "to": after})
    elif before == after:
        output.print_line(f"the tables are at revision {after} already")
    else:
        output.print_line(f"upgraded the tables from {before or 'none'} to revision {after}")

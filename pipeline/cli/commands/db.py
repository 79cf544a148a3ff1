"""`smt-billing db`: create and upgrade the database tables."""

import typer

from pipeline.cli import output
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.db import migrations

app = group()


@app.command()
def upgrade(ctx: typer.Context, json: Json = False) -> None:
    """Create the tables, or upgrade them to this version. Data is kept, and repeating the command changes nothing."""
    database = context_of(ctx).unchecked_database
    before = migrations.current(database)
    migrations.upgrade(database)
    after = migrations.current(database)
    if json:
        output.print_json({"from": before, "to": after})
    elif before == after:
        output.print_line(f"the tables already have revision {after}")
    else:
        output.print_line(f"upgraded the tables from {before or 'none'} to revision {after}")

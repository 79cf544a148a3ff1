"""`smt-billing db`: the tables and their revisions."""

import typer

from pipeline.cli import output as say
from pipeline.cli.context import Json, of

app = typer.Typer(help="The database's tables.", no_args_is_help=True)


@app.command()
def upgrade(context: typer.Context, json: Json = False) -> None:
    """Bring the tables to the revision this program was written for. What is there already stays; safe to repeat."""
    from pipeline.db import migrations

    database = of(context).untouched_database
    before = migrations.current(database)
    migrations.upgrade(database)
    after = migrations.current(database)
    if json:
        say.json({"from": before, "to": after})
    elif before == after:
        say.line(f"the tables are at revision {after} already")
    else:
        say.line(f"upgraded the tables from {before or 'none'} to revision {after}")

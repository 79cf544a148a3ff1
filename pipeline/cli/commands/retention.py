"""`smt-billing retention`: what has reached its period, and its end."""

from typing import Annotated

import typer

from pipeline.app import maintenance
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.privacy.retention.legal_holds import retention_period_for
from pipeline.privacy.retention.rules import RULES

app = group()


@app.command()
def sweep(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """End what has reached its period: people are erased, rows deleted, keys destroyed. The scheduler does it by itself.

    JSON: an object, rule -> rows.
    """
    call = context_of(context)
    _ = call.database
    counts = maintenance.run_retention(container_of(call), dry=dry_run)
    if json:
        output.print_json(counts)
    elif not any(counts.values()):
        output.print_line("nothing has reached its period")
    else:
        output.print_table(
            ("what", "rows"), [(name, count) for name, count in counts.items() if count], numbers=("rows",)
        )
        if dry_run:
            output.print_note("nothing was changed")


@app.command()
def rules(context: typer.Context, json: Json = False) -> None:
    """List what is kept how long, counted from what, and how it ends.

    JSON: an array of objects with name, category, anchor, period and action.
    """
    hold = retention_period_for(context_of(context).settings.country)
    if json:
        names = ("name", "category", "anchor", "period", "action")
        output.print_json([{name: getattr(rule, name) for name in names} for rule in RULES])
        return
    rows = [(rule.name, rule.category, rule.anchor, rule.period, rule.action) for rule in RULES]
    output.print_table(("what", "category", "counted from", "kept for", "then"), rows)
    output.print_line(f"Invoices are held for {hold.invoice_years} years: {hold.law}.")

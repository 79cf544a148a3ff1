"""`smt-billing retention`: show and apply retention periods."""

from typing import Annotated

import typer

from pipeline.app import maintenance
from pipeline.cli import output
from pipeline.cli.confirmation import Yes, confirm
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.privacy.retention.legal_holds import retention_period_for
from pipeline.privacy.retention.rules import RULES

app = group()


@app.command()
def sweep(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete data past its retention period: erase customers, delete rows, destroy keys. Asks for confirmation.

    The scheduler does this hourly.

    JSON: an object with the number of rows for each rule.
    """
    context = context_of(ctx)
    if not dry_run:
        context.settings.require("country")  # its law says what must be kept
    _ = context.database
    if not dry_run:
        confirm("This deletes all data past its retention period. See it first with --dry-run.", yes=yes)
    counts = maintenance.run_retention(container_of(context), dry=dry_run)
    if json:
        output.print_json(counts)
    elif not any(counts.values()):
        output.print_line("no data is past its retention period")
    else:
        output.print_table(
            ("what", "rows"), [(name, count) for name, count in counts.items() if count], numbers=("rows",)
        )
        if dry_run:
            output.print_note("nothing was changed")


@app.command()
def rules(ctx: typer.Context, json: Json = False) -> None:
    """List the retention periods: data, start and length of the period, and what happens at its end.

    JSON: an array of objects with name, category, anchor, period and action.
    """
    hold = retention_period_for(context_of(ctx).settings.country)
    if json:
        names = ("name", "category", "anchor", "period", "action")
        output.print_json([{name: getattr(rule, name) for name in names} for rule in RULES])
        return
    rows = [(rule.name, rule.category, rule.anchor, rule.period, rule.action) for rule in RULES]
    output.print_table(("what", "category", "counted from", "kept for", "then"), rows)
    output.print_line(f"Invoices are held for {hold.invoice_years} years: {hold.law}.")

"""`smt-billing disputes`: what buyers dispute, and until when the vendor must answer."""

from typing import Annotated, Any

import typer

from pipeline.cli import output
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import Until, parse_period
from pipeline.db.models import Dispute
from pipeline.errors import UsageError
from pipeline.money import Money, format_money
from pipeline.queries import disputes
from pipeline.queries.listing import ListQuery, count

app = group()


@app.command("list")
def list_(
    ctx: typer.Context,
    open_: Annotated[bool, typer.Option("--open", help="Only disputes that have not ended.")] = False,
    since: Annotated[str | None, typer.Option(help="Only disputes opened since this day or time, such as 30d.")] = None,
    until: Until = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List disputes, the newest first. You answer them in PayPal's Resolution Centre.

    JSON: one array of objects with id, payment, status, stage, reason, amount (minor units), currency, due_at, outcome,
    opened_at and resolved_at.
    """
    context = context_of(ctx)
    period = parse_period(since, until, context.clock.now())
    query = ListQuery(
        {},
        period.since,
        limit if json else limit or output.SHOWN,
        [disputes.is_open()] if open_ else [],
        until=period.until,
    )
    with context.database.reading() as session:
        rows = list(disputes.disputes(session, query))
        total = 0 if json or limit else count(session, Dispute, Dispute.opened_at, query)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such disputes")
    else:
        locale = context.settings.locale
        headings = ("id", "answer by", "amount", "reason", "status", "outcome", "payment")
        output.print_table(headings, [_row(row, locale) for row in rows], numbers=("amount",))
        output.print_more(total, len(rows))


@app.command()
def show(
    ctx: typer.Context, id: Annotated[str, typer.Argument(help="PayPal's id of the dispute.")], json: Json = False
) -> None:
    """Show one dispute. JSON: the list's fields."""
    context = context_of(ctx)
    with context.database.reading() as session:
        found = disputes.dispute(session, id)
    if found is None:
        raise UsageError(f"there is no dispute {id}; see: smt-billing disputes list")
    if json:
        output.print_json(found)
    else:
        names = ("dispute", "answer by", "amount", "reason", "status", "outcome", "payment")
        output.print_pairs(
            {name: value or None for name, value in zip(names, _row(found, context.settings.locale), strict=True)}
        )


def _row(row: dict[str, Any], locale: str) -> list[object]:
    amount = "" if row["amount"] is None else format_money(Money(row["amount"], row["currency"]), locale)
    due = "" if row["resolved_at"] else output.format_day(output.parse_stamp(row["due_at"]), locale)
    words = [(row[name] or "").replace("_", " ").lower() for name in ("reason", "status", "outcome")]
    return [row["id"], due, amount, *words, row["payment"]]

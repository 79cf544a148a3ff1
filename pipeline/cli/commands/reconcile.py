"""`smt-billing reconcile`: ask PayPal what was missed, and show the differences that stay."""

from typing import Annotated

import typer

from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import Until, parse_period, parse_time_option
from pipeline.db.models import ReconciliationException
from pipeline.errors import UsageError
from pipeline.queries import reconciliation as queries
from pipeline.queries.listing import ListQuery, count
from pipeline.reconciliation import exceptions
from pipeline.reconciliation.run import as_json

app = group(invoke_without_command=True, no_args_is_help=False)


@app.callback()
def reconcile(
    ctx: typer.Context,
    since: Annotated[
        str | None,
        typer.Option(
            help="Compare from this time on, such as 30d; default: from the end of the last run, at first 30 days."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compare PayPal's webhook events, subscriptions and transactions with the database; daily the scheduler does it too.

    What is missing enters the inbox or is looked up. A difference that stays is an open exception: see
    `reconcile list`. Exit 1 while there are any. JSON: an object with the counts of the run.
    """
    if ctx.invoked_subcommand is not None:
        return
    context = context_of(ctx)
    container = container_of(context)
    run, start = container.reconciliation, parse_time_option(since, "--since", context.clock.now())
    with output.progress("periods compared", run.steps(start)) as advance:
        result = run.run(start, advance)
    if json:
        output.print_json(as_json(result))
    else:
        output.print_pairs({name.replace("_", " "): _shown(value) for name, value in as_json(result).items()})
        if result.open:
            output.print_line("→ see: smt-billing reconcile list")
    if result.open:
        raise typer.Exit(1)


@app.command("list")
def list_(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were resolved or ignored.")] = False,
    since: Annotated[str | None, typer.Option(help="Only differences found since this time, such as 30d.")] = None,
    until: Until = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List the differences between PayPal and the database, the newest first. Exit 1 while a difference is open.

    JSON: one array of objects with kind, id, reason, found_at, looked_up_at, resolved_at, ignored_reason and next_step.
    """
    context = context_of(ctx)
    now = context.clock.now()
    period = parse_period(since, until, now)
    conditions = [] if everything else [exceptions.is_open()]
    query = ListQuery({}, period.since, limit if json else limit or output.SHOWN, conditions, until=period.until)
    with context.database.reading() as session:
        rows = list(queries.exceptions(session, query))
        total = 0 if json or limit else count(session, ReconciliationException, ReconciliationException.found_at, query)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no differences")
    else:
        shown = [
            (row["kind"], row["id"], output.format_stamp(row["found_at"]), row["reason"], row["next_step"])
            for row in rows
        ]
        output.print_table(("kind", "id", "found (UTC)", "difference", "next step"), shown)
        output.print_more(total, len(rows))
    if any(row["resolved_at"] is None for row in rows):
        raise typer.Exit(1)


@app.command()
def ignore(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="PayPal's id of the object; see: smt-billing reconcile list.")],
    reason: Annotated[str, typer.Option(help="Why the difference is right, for those who read the list later.")],
    json: Json = False,
) -> None:
    """Close the difference about this object. It is not reported again. JSON: an object with ignored (a number)."""
    context = context_of(ctx)
    with context.database.transaction() as session:
        closed = exceptions.ignore(session, id, reason.strip()[:500], context.clock.now())
    if not closed:
        raise UsageError(f"there is no open difference about {id}; see: smt-billing reconcile list")
    if json:
        output.print_json({"ignored": closed})
    else:
        output.print_line(f"closed: {id}")


def _shown(value: object) -> object:
    return ", ".join(value) or None if isinstance(value, tuple) else f"{value:,}"

"""`smt-billing lookups`: questions to PayPal's API that have no answer yet."""

from typing import Annotated, Literal

import typer

from pipeline.cli import output
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import Until, parse_period
from pipeline.db.models import PaypalLookup
from pipeline.errors import UsageError
from pipeline.queries import lookups
from pipeline.queries.listing import ListQuery, count

app = group()

Kind = Literal["subscription", "plan", "sale", "refund"]


@app.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[
        lookups.LookupState | None,
        typer.Option(case_sensitive=False, help="Only look-ups in this state; given-up: they are not tried again."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(case_sensitive=False, help="Only look-ups of this kind.")] = None,
    since: Annotated[str | None, typer.Option(help="Only look-ups that wait since this time or later.")] = None,
    until: Until = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List the look-ups without an answer, the newest first, with the reason of the last failure.

    JSON: one array of objects with kind, id, state, due_at, attempts, waiting_since and reason.
    """
    context = context_of(ctx)
    conditions = {
        None: [], "pending": [PaypalLookup.due_at.is_not(None)], "given-up": [PaypalLookup.due_at.is_(None)],
    }[state]  # fmt: skip
    period = parse_period(since, until, context.clock.now())
    query = ListQuery(
        {"kind": kind}, period.since, limit if json else limit or output.SHOWN, conditions, until=period.until
    )
    with context.database.reading() as session:
        rows = list(lookups.lookups(session, query))
        total = 0 if json or limit else count(session, PaypalLookup, PaypalLookup.first_due_at, query)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such look-ups")
    else:
        shown = [
            (row["kind"], row["id"], row["state"], output.format_stamp(row["due_at"]), row["attempts"], row["reason"])
            for row in rows
        ]
        output.print_table(("kind", "id", "state", "next try (UTC)", "tries", "reason"), shown, numbers=("tries",))
        output.print_more(total, len(rows))


@app.command()
def retry(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Ids of the objects at PayPal; see: smt-billing lookups list.")],
    json: Json = False,
) -> None:
    """Ask PayPal again now, also about objects that were given up. A worker makes the look-ups.

    JSON: an object with retried (ids). Exit 2 if there is no look-up of an id; the others are retried.
    """
    context = context_of(ctx)
    with context.database.transaction() as session:
        retried = lookups.retry(session, ids, context.clock.now())
    if json:
        output.print_json({"retried": retried})
    elif retried:
        output.print_line(f"PayPal is asked again about {', '.join(retried)}")
    unknown = sorted(set(ids) - set(retried))
    if unknown:
        raise UsageError(f"there is no look-up of {', '.join(unknown)}; see: smt-billing lookups list")

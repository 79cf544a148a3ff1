"""`smt-billing payments`: list payments, show one, and refund it."""

from typing import Annotated, Any, Literal

import typer

from pipeline.actions.order import Order
from pipeline.cli import output
from pipeline.cli.commands.action_options import Amount, Reason, actor, amount_of, carry_out
from pipeline.cli.confirmation import Yes
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import Until, parse_period
from pipeline.db.models import Payment
from pipeline.errors import UsageError
from pipeline.money import Money, format_money
from pipeline.queries import payments
from pipeline.queries.listing import ListQuery, count

app = group()

Status = Literal["pending", "completed", "denied", "partially_refunded", "refunded", "reversed", "unconfirmed"]
Id = Annotated[str, typer.Argument(help="PayPal's id of the payment; see: smt-billing payments list.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[Status | None, typer.Option(case_sensitive=False, help="Only payments with this status.")] = None,
    currency: Annotated[str | None, typer.Option(help="Only payments in this currency, such as EUR.")] = None,
    subscription: Annotated[
        str | None, typer.Option(help="Only payments of this subscription; none: those that belong to no subscription.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only payments since this day or time, such as 30d.")] = None,
    until: Until = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List payments, the newest first.

    JSON: one array of objects with id, subscription, amount, currency, status, refunded, fee (minor units), occurred_at.
    """
    context = context_of(ctx)
    period = parse_period(since, until, context.clock.now())
    has_none = subscription == "none"
    named = None if has_none else subscription
    query = ListQuery(
        {"status": status, "currency": currency.upper() if currency else None, "subscription_id": named},
        period.since,
        limit if json else limit or output.SHOWN,
        [payments.without_subscription()] if has_none else [],
        until=period.until,
    )
    with context.database.reading() as session:
        rows = list(payments.payments(session, query))
        total = 0 if json or limit else count(session, Payment, Payment.occurred_at, query)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such payments")
    else:
        locale = context.settings.locale
        headings = ("id", "paid on", "amount", "refunded", "fee", "status", "subscription")
        output.print_table(headings, [_row(row, locale) for row in rows], numbers=("amount", "refunded", "fee"))
        output.print_more(total, len(rows))


@app.command()
def show(ctx: typer.Context, id: Id, json: Json = False) -> None:
    """Show one payment with its refunds and the actions on it. JSON: the list's fields, refunds and actions."""
    context = context_of(ctx)
    with context.database.reading() as session:
        found = payments.payment(session, id)
    if found is None:
        raise UsageError(f"there is no payment {id}; see: smt-billing payments list")
    if json:
        output.print_json(found)
        return
    locale = context.settings.locale
    names = ("payment", "paid on", "amount", "refunded", "fee", "status", "subscription")
    output.print_pairs({name: value or None for name, value in zip(names, _row(found, locale), strict=True)})
    lines = [
        (each["occurred_at"], each["kind"], _money(each, "amount", locale), each["id"]) for each in found["refunds"]
    ]
    lines += [(each["requested_at"], each["kind"], each["state"], each["outcome"] or "") for each in found["actions"]]
    output.print_table(
        ("when (UTC)", "what", "", ""), [(output.format_stamp(at), *rest) for at, *rest in sorted(lines)]
    )


@app.command()
def refund(
    ctx: typer.Context, id: Id, reason: Reason, amount: Amount = None, yes: Yes = False, json: Json = False
) -> None:
    """Refund a payment through PayPal: all that is left of it, or --amount. Exit 1 if PayPal refuses it or is away.

    JSON: an object with action, kind, object, state (done, refused or requested) and outcome.
    """
    with context_of(ctx).database.reading() as session:
        row = session.get(Payment, id)
        currency = row.currency if row else None
    carry_out(ctx, Order("refund", id, reason, actor(), amount=amount_of(amount, currency)), yes=yes, json=json)


def _row(row: dict[str, Any], locale: str) -> list[object]:
    return [
        row["id"],
        output.format_day(output.parse_stamp(row["occurred_at"]), locale),
        _money(row, "amount", locale),
        _money(row, "refunded", locale) if row["refunded"] else "",
        _money(row, "fee", locale) if row["fee"] else "",
        row["status"],
        row["subscription"],
    ]


def _money(row: dict[str, Any], name: str, locale: str) -> str:
    return "" if row[name] is None else format_money(Money(row[name], row["currency"]), locale)

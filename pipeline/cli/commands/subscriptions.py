"""`smt-billing subscriptions`: list subscriptions, and show one with its history."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import output, read_audit
from pipeline.cli.commands import subscription_actions
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.read_audit import Purpose
from pipeline.cli.time_options import Until, parse_period
from pipeline.db.models import CAME, Subscription
from pipeline.errors import UsageError
from pipeline.money import Money
from pipeline.money import format_money as show_money
from pipeline.queries import subscriptions
from pipeline.queries.listing import ListQuery, count
from pipeline.queries.mails import renderer

app = group()
subscription_actions.register(app)

Status = Literal["APPROVAL_PENDING", "APPROVED", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"]
HEADINGS = (
    "id", "status", "past due since", "open", "plan", "paid through", "next billing", "payments", "last paid", "paid on",
    "customer",
)  # fmt: skip
NUMBERS = ("open", "payments", "last paid")


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[
        Status | None, typer.Option(case_sensitive=False, help="Only subscriptions with this status.")
    ] = None,
    plan: Annotated[str | None, typer.Option(help="Only subscriptions to this plan (PayPal's id).")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only subscriptions first seen since this time, for example 30d or 2026-03-01.")
    ] = None,
    until: Until = None,
    past_due: Annotated[bool, typer.Option("--past-due", help="Only subscriptions that are past due.")] = False,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List subscriptions, the newest first. A placeholder has no status: a payment arrived before the subscription event.

    JSON: one array of objects with id, status, plan, paid_through, entitled (has access now), access_until,
    disputed_since, next_billing_at, customer, past_due, past_due_since, outstanding, failed_count, last_payment_at and
    payments (amounts in minor units).
    """
    context = context_of(ctx)
    now = context.clock.now()
    period = parse_period(since, until, now)
    query = ListQuery(
        {"status": status, "plan_id": plan and plan.upper()},
        period.since,
        limit if json else limit or output.SHOWN,
        [subscriptions.is_past_due(now)] if past_due else [],
        period.until,
    )
    with context.database.reading() as session:
        rows = list(
            subscriptions.subscriptions(session, query, now, pauses_access=context.settings.dispute_pauses_access)
        )
        total = 0 if json or limit else count(session, Subscription, Subscription.created_at, query)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such subscriptions")
    else:
        output.print_table(HEADINGS, [_row(found, context.settings.locale) for found in rows], numbers=NUMBERS)
        output.print_more(total, len(rows))


@app.command()
def show(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="PayPal's id of the subscription, such as I-BW452GLLEP1G.")],
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """Show one subscription: its state, and the history of its status changes, payments, refunds and mails."""
    context = context_of(ctx)
    container = container_of(context)
    with context.decryptor() as decryptor:
        found = subscriptions.subscription(
            decryptor,
            id,
            renderer(lambda: container.templates),
            pauses_access=context.settings.dispute_pauses_access,
        )
    if found is None:
        raise UsageError(f"there is no subscription {id}; see: smt-billing subscriptions list")
    read_audit.record_read(context, "subscriptions show", purpose, id)
    if json:
        output.print_json(found)
        return
    locale = context.settings.locale
    output.print_pairs(_facts(found, locale))
    output.print_line()
    lines = sorted([*_status_changes(found), *_money(found, locale), *_mails(found)], key=_by_time)
    output.print_table(
        ("when", "what", "", ""), [(output.format_moment(output.parse_stamp(at), locale), *rest) for at, *rest in lines]
    )


def _row(found: dict[str, Any], locale: str) -> list[object]:
    paid = [payment for payment in found["payments"] if payment["status"] in CAME]
    return [
        found["id"],
        found["status"] or "placeholder",
        output.format_day(output.parse_stamp(found["past_due_since"]), locale),
        _price(found["outstanding"], locale) if found["outstanding"] else "",
        found["plan_name"] or found["plan"],
        output.format_day(output.parse_stamp(found["paid_through"]), locale),
        output.format_day(output.parse_stamp(found["next_billing_at"]), locale),
        len(paid),
        _price(paid[-1], locale) if paid else "",
        output.format_day(output.parse_stamp(found["last_payment_at"]), locale),
        found["customer"],
    ]


def _facts(found: dict[str, Any], locale: str) -> dict[str, object]:
    return {
        "subscription": found["id"],
        "status": found["status"] or "placeholder: a payment arrived before the subscription event",
        "since": output.format_moment(output.parse_stamp(found["status_at"]), locale) or None,
        "past due": _past_due(found, locale),
        "plan": found["plan_name"] or found["plan"],
        "paid through": output.format_moment(output.parse_stamp(found["paid_through"]), locale) or None,
        "access until": output.format_moment(output.parse_stamp(found["access_until"]), locale) or None,
        "disputed since": output.format_moment(output.parse_stamp(found["disputed_since"]), locale) or None,
        "next billing": output.format_moment(output.parse_stamp(found["next_billing_at"]), locale) or None,
        "next reminder": output.format_moment(output.parse_stamp(found["remind_at"]), locale) or None,
        "name": "erased" if found["erased"] else found["name"],
        "e-mail": "erased" if found["erased"] else found["email"],
        "customer": found["customer"],
    }


def _past_due(found: dict[str, Any], locale: str) -> str | None:
    """Return since when the subscription is past due, the counted failures and the open balance; None if it is not."""
    if not found["past_due"]:
        return None
    since = output.format_moment(output.parse_stamp(found["past_due_since"]), locale)
    failed = f"failed payments: {found['failed_count']}" if found["failed_count"] else ""
    balance = f"open balance: {_price(found['outstanding'], locale)}" if found["outstanding"] else ""
    return "; ".join(part for part in (f"since {since}", failed, balance) if part)


Line = tuple[str, str, str, str]


def _status_changes(found: dict[str, Any]) -> list[Line]:
    return [
        (change["at"], f"{change['old'] or 'new'} → {change['new']}", change["reason"], change["event"])
        for change in found["changes"]
    ]


def _money(found: dict[str, Any], locale: str) -> list[Line]:
    """Return payments and refunds. A payment without a time comes first."""
    payments = [
        (row["occurred_at"] or "", f"payment {row['status']}", _price(row, locale), row["id"])
        for row in found["payments"]
    ]
    refunds = [(row["occurred_at"], row["kind"], "-" + _price(row, locale), row["id"]) for row in found["refunds"]]
    return payments + refunds


def _mails(found: dict[str, Any]) -> list[Line]:
    return [
        (row["sent_at"] or row["created_at"], f"mail {row['state']}", row["subject"] or row["kind"], row["id"])
        for row in found["mails"]
    ]


def _by_time(line: Line) -> datetime:
    return output.parse_stamp(line[0]) or datetime.min.replace(tzinfo=UTC)


def _price(row: dict[str, Any], locale: str) -> str:
    return "" if row["amount"] is None else show_money(Money(row["amount"], row["currency"]), locale)

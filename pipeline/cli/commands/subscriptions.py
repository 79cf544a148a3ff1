"""`smt-billing subscriptions`: who subscribes, until when is paid, and how it came about."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import output as say
from pipeline.cli import read_audit as reading
from pipeline.cli.context import Json, Limit, of
from pipeline.cli.read_audit import Purpose
from pipeline.errors import Wrong

app = typer.Typer(help="Subscriptions, their payments and until when is paid.", no_args_is_help=True)

Status = Literal["APPROVAL_PENDING", "APPROVED", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"]
HEADINGS = ("id", "status", "plan", "paid through", "next billing", "payments", "last paid")


@app.command("list")
def list_(
    context: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only with this status.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List the subscriptions, the newest first. One without status is a placeholder: money came before any word of it.

    JSON: one array of objects with id, status, plan, paid_through, next_billing_at, customer and payments (amounts in
    minor units).
    """
    from pipeline.db.models import Subscription
    from pipeline.queries import listing as looks

    call = of(context)
    asked = looks.Asked({"status": status}, limit=limit if json else limit or say.SHOWN)
    with call.database.reading() as session:
        rows = list(looks.subscriptions(session, asked))
        total = 0 if json or limit else looks.count(session, Subscription, Subscription.created_at, asked)
    if json:
        say.json(rows)
    elif not rows:
        say.line("no such subscriptions")
    else:
        say.table(HEADINGS, [_row(found, call.settings.locale) for found in rows], numbers=("payments", "last paid"))
        say.more(total, len(rows))


@app.command()
def show(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="PayPal's id, as I-BW452GLLEP1G.")],
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """Show one subscription: where it stands, and the story of its moves, payments, refunds and mails."""
    from pipeline.cli.commands import mail
    from pipeline.queries import listing as looks

    call = of(context)
    with call.database.reading() as session:
        lens = looks.Lens(session, lambda: call.master, call.clock.now())
        found = looks.subscription(lens, id, mail.subject(call))
    if found is None:
        raise Wrong(f"there is no subscription {id}; see: smt-billing subscriptions list")
    reading.note(call, "subscriptions show", purpose, id)
    if json:
        say.json(found)
        return
    locale = call.settings.locale
    say.pairs(_facts(found, locale))
    say.line()
    lines = sorted([*_moves(found), *_money(found, locale), *_mails(found)], key=_by_time)
    say.table(("when", "what", "", ""), [(say.moment(_time(at), locale), *rest) for at, *rest in lines])


def _row(found: dict[str, Any], locale: str) -> list[object]:
    from pipeline.db.models import CAME

    paid = [payment for payment in found["payments"] if payment["status"] in CAME]
    return [
        found["id"],
        found["status"] or "placeholder",
        found["plan_name"] or found["plan"],
        say.day(_time(found["paid_through"]), locale),
        say.day(_time(found["next_billing_at"]), locale),
        len(paid),
        _price(paid[-1], locale) if paid else "",
    ]


def _facts(found: dict[str, Any], locale: str) -> dict[str, object]:
    return {
        "subscription": found["id"],
        "status": found["status"] or "placeholder: money came before any word of it",
        "since": say.moment(_time(found["status_at"]), locale) or None,
        "plan": found["plan_name"] or found["plan"],
        "paid through": say.moment(_time(found["paid_through"]), locale) or None,
        "next billing": say.moment(_time(found["next_billing_at"]), locale) or None,
        "next reminder": say.moment(_time(found["remind_at"]), locale) or None,
        "name": "erased" if found["erased"] else found["name"],
        "e-mail": "erased" if found["erased"] else found["email"],
        "customer": found["customer"],
    }


Line = tuple[str, str, str, str]


def _moves(found: dict[str, Any]) -> list[Line]:
    return [
        (change["at"], f"{change['old'] or 'new'} → {change['new']}", change["reason"], change["event"])
        for change in found["changes"]
    ]


def _money(found: dict[str, Any], locale: str) -> list[Line]:
    """Payments and refunds; one without a time yet comes first."""
    paid = [
        (row["occurred_at"] or "", f"payment {row['status']}", _price(row, locale), row["id"])
        for row in found["payments"]
    ]
    back = [(row["occurred_at"], row["kind"], "-" + _price(row, locale), row["id"]) for row in found["refunds"]]
    return paid + back


def _mails(found: dict[str, Any]) -> list[Line]:
    return [
        (row["sent_at"] or row["created_at"], f"mail {row['state']}", row["subject"] or row["kind"], row["id"])
        for row in found["mails"]
    ]


def _by_time(line: Line) -> datetime:
    return _time(line[0]) or datetime.min.replace(tzinfo=UTC)


def _price(row: dict[str, Any], locale: str) -> str:
    from pipeline.money import Money, show

    return "" if row["amount"] is None else show(Money(row["amount"], row["currency"]), locale)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

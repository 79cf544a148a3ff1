"""`smt-billing subscriptions cancel|suspend|activate|capture|revise`: change a subscription at PayPal."""

from typing import Annotated

import typer

from pipeline.actions.order import Kind, Order
from pipeline.cli.commands.action_options import Amount, Reason, actor, amount_of, carry_out
from pipeline.cli.confirmation import Yes
from pipeline.cli.context import Json, context_of
from pipeline.db.models import Subscription

Id = Annotated[str, typer.Argument(help="PayPal's id of the subscription, such as I-BW452GLLEP1G.")]
JSON_KEYS = "JSON: an object with action, kind, object, state (done, refused or requested) and outcome."


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    for command in (cancel, suspend, activate, capture, revise):
        command.__doc__ = f"{command.__doc__}\n\n{JSON_KEYS}"
        app.command()(command)


def cancel(ctx: typer.Context, id: Id, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Cancel a subscription at PayPal at once. It cannot be activated again; access remains until the paid-through date."""
    _change(ctx, "cancel", id, reason, yes=yes, json=json)


def suspend(ctx: typer.Context, id: Id, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Suspend a subscription: PayPal charges nothing until it is activated again."""
    _change(ctx, "suspend", id, reason, yes=yes, json=json)


def activate(ctx: typer.Context, id: Id, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Activate a suspended subscription: PayPal charges again."""
    _change(ctx, "activate", id, reason, yes=yes, json=json)


def capture(
    ctx: typer.Context, id: Id, reason: Reason, amount: Amount = None, yes: Yes = False, json: Json = False
) -> None:
    """Collect the open balance of a subscription now, or a part of it."""
    with context_of(ctx).database.reading() as session:
        row = session.get(Subscription, id)
        currency = row.outstanding_currency if row else None
    order = Order("capture", id, reason, actor(), amount=amount_of(amount, currency))
    carry_out(ctx, order, yes=yes, json=json)


def revise(
    ctx: typer.Context,
    id: Id,
    reason: Reason,
    plan: Annotated[str | None, typer.Option(help="Id of the new plan (P-…).")] = None,
    quantity: Annotated[int | None, typer.Option(min=1, max=99_999, help="New number of units.")] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Change plan or quantity. PayPal may need the buyer's consent; the address where they agree is printed."""
    carry_out(ctx, Order("revise", id, reason, actor(), plan=plan, quantity=quantity), yes=yes, json=json)


def _change(ctx: typer.Context, kind: Kind, id: str, reason: str, *, yes: bool, json: bool) -> None:
    carry_out(ctx, Order(kind, id, reason, actor()), yes=yes, json=json)

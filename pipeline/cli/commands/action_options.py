"""Options of the commands that change something at PayPal, and what they all do: ask, store, carry out, print."""

from typing import Annotated, Any

import typer

from pipeline.actions.order import Order, describe, place
from pipeline.actions.perform import Outcome, perform
from pipeline.cli import output
from pipeline.cli.confirmation import confirm
from pipeline.cli.container import container_of
from pipeline.cli.context import context_of
from pipeline.crypto.keyring import Keyring
from pipeline.errors import UsageError
from pipeline.money import InvalidAmountError, Money, parse_amount
from pipeline.privacy import audit_log

Reason = Annotated[
    str, typer.Option("--reason", help="Why; it is stored with the action. PayPal gets your account's name only.")
]
Amount = Annotated[str | None, typer.Option("--amount", help="Only this much, such as 5.00; default: all of it.")]


def carry_out(ctx: typer.Context, order: Order, *, yes: bool, json: bool) -> None:
    """Ask, store the order, and carry it out. Exit 1 if PayPal refuses it or is away.

    If PayPal is away, the scheduler tries again; the order is carried out once.
    """
    context = context_of(ctx)
    container = container_of(context)
    container.settings.require("paypal_client_id", "paypal_client_secret")
    with container.database.reading() as session:
        consequence = describe(session, order, context.settings.locale)
    confirm(consequence, yes=yes)
    with container.database.transaction() as session:
        now = context.clock.now()
        id = place(session, Keyring(container.master_key, session, now), order, now).id
    outcome = perform(container.database, context.clock, container.paypal, id)
    _print(id, order, outcome, json=json)
    if outcome.state != "done":
        raise typer.Exit(1)


def actor() -> str:
    """Return who orders: the account of the machine."""
    return audit_log.this_user()


def amount_of(text: str | None, currency: str | None) -> Money | None:
    """Return the amount of an option in this currency, None without one. Raises UsageError."""
    if text is None:
        return None
    try:
        return parse_amount(text, currency)
    except InvalidAmountError as error:
        raise UsageError(f"--amount {text} is not an amount in {currency or 'an unknown currency'}: {error}") from error


def _print(id: str, order: Order, outcome: Outcome, *, json: bool) -> None:
    if json:
        shown: dict[str, Any] = {"action": id, "kind": order.kind, "object": order.object_id}
        output.print_json(shown | {"state": outcome.state, "outcome": outcome.text})
        return
    words = {
        "done": "done",
        "refused": "refused by PayPal; nothing was changed",
        "requested": "not done yet; the scheduler tries again for a day",
    }
    output.print_line(f"{words.get(outcome.state, outcome.state)}: {outcome.text}")
    if outcome.state == "done":
        output.print_line("the state here changes when PayPal's answer has been read, within a minute")

"""`smt-billing paypal import`: take over an existing vendor's subscriptions."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.reconciliation.history import HistoryImport, ImportResult, ids_in_csv


def import_(
    ctx: typer.Context,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="Only the subscriptions in this export of WooCommerce Subscriptions (ppcp_subscription)."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Store all subscriptions of the PayPal account, in every state, with their payments of up to three years.

    Sends PayPal only GET requests, and customers nothing. Can be stopped at any point and run again: what is stored is
    skipped. Afterwards a worker handles the events, and `smt-billing reconcile --since 1095d` compares the money.
    Exit 1 if something cannot be taken over. JSON: an object with listed, imported, skipped, payments, refused and stored.
    """
    context = context_of(ctx)
    container = container_of(context)
    container.settings.require("paypal_client_id", "paypal_client_secret")
    history = HistoryImport(
        container.database, container.master_key, container.clock, container.paypal, container.paypal_rate
    )
    result = ImportResult()
    ids = ids_in_csv(csv, result) if csv else None
    with output.progress("subscriptions", len(ids) if ids is not None else history.total()) as advance:
        history.run(iter(ids) if ids is not None else history.all_ids(), result, advance)
    if json:
        refused = [{"what": what, "reason": reason} for what, reason in result.refused]
        names = ("listed", "imported", "skipped", "payments", "stored")
        output.print_json({name: getattr(result, name) for name in names} | {"refused": refused})
    else:
        output.print_pairs(
            {
                "listed by PayPal": f"{result.listed:,}", "imported now": f"{result.imported:,}",
                "imported before": f"{result.skipped:,}", "payments": f"{result.payments:,}",
                "stored in all": f"{result.stored:,}",
            }
        )  # fmt: skip
        output.print_table(("not taken over", "reason"), result.refused)
    if result.refused:
        raise typer.Exit(1)

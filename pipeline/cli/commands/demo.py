"""`smt-billing demo`: play a vendor's first months in one process, print a summary, and serve the pages and the mails."""

import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.container import Container
from pipeline.cli import output
from pipeline.cli.context import context_of
from pipeline.clock import Clock
from pipeline.demo import environment
from pipeline.demo.data_folder import DemoOptions, DemoRun, open_demo_folder
from pipeline.demo.environment import DemoEnvironment
from pipeline.demo.playback import play, run_live
from pipeline.demo.start_page import sample_address
from pipeline.demo.summary import PaymentTotals, Summary, as_json, summarize
from pipeline.money import Money, format_money
from pipeline.settings import Settings

PORT = 8025  # of the pages


def demo(
    ctx: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Play, print the summary and exit; exit 1 if something failed.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier demo in this data folder first.")] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"Port of the pages; default: {PORT}, 0 for a free one.")
    ] = None,
    months: Annotated[int | None, typer.Option(min=1, max=60, help="Number of months to play; default: 6.")] = None,
    subscribers: Annotated[int | None, typer.Option(min=1, max=5000, help="Number of customers; default: 24.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random generator; another seed plays other customers.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Needs no settings. Its data stays in SMT_DATA_DIR (./var) and ends at the present time, so every other command works
    on it afterwards. If the folder contains an earlier demo, that demo is shown again. If it contains other events, the
    command refuses.
    """
    context = context_of(ctx)
    options = DemoOptions(months, subscribers, seed)
    locale = context.settings.locale

    def make_container(settings: Settings, clock: Clock) -> Container:
        return Container(settings, context.handlers(), clock)

    def date(at: datetime) -> str:
        return output.format_moment(at, locale).removesuffix(" UTC")

    with (
        open_demo_folder(context.settings, options, fresh=fresh) as earlier,
        environment.open_environment(
            context.settings.data_dir, make_container, date, port=0 if once else port, usual_port=PORT
        ) as opened,
    ):
        summary = _show_or_play(opened, earlier)
        _report(summary, opened, json=json, once=once)
        if not once:
            run_live(opened)
    if not summary.complete and once:
        raise typer.Exit(1)


def _show_or_play(opened: DemoEnvironment, earlier: DemoRun) -> Summary:
    if earlier.is_done:
        output.print_note(f"showing the earlier demo of {earlier.ended_at:%Y-%m-%d %H:%M} UTC; --fresh plays a new one")
    else:
        earlier = play(opened, earlier, output.progress)
    return summarize(opened.parts.database, earlier, opened.caught)


def _report(summary: Summary, opened: DemoEnvironment, *, json: bool, once: bool) -> None:
    if json:
        output.print_json(as_json(summary))
        return
    _print_summary(summary, opened.parts.settings.locale)
    if not once:
        _print_pages(opened)
    command, subscription = _own_name(), summary.worth_a_look
    output.print_line("Try these commands:")
    for words in (
        "subscriptions list",
        *([f"subscriptions show {subscription}"] if subscription else []),
        "events list --type PAYMENT.SALE.REFUNDED",
        "mail list --kind payment_failed",
        "disputes list",
        "doctor",
        *([f'payments refund {summary.refundable} --reason "Example"'] if summary.refundable and not once else []),
        *([] if once else [f"simulate refund --url {opened.url}/webhooks/paypal --webhook-id {opened.webhook_id}"]),
    ):
        output.print_line(f"  {command} {words}")
    stop = "" if once else " Ctrl-C stops the demo."
    output.print_line(f"The data stays in {opened.parts.settings.data_dir}.{stop}")


def _print_pages(opened: DemoEnvironment) -> None:
    """Print the addresses of the pages, and a customer to sign in as."""
    email = sample_address(opened.parts)
    output.print_line(f"Start page: {opened.url}/")
    output.print_pairs(
        {
            "  order a subscription": f"{opened.url}/signup",
            "  sign in as a customer": f"{opened.url}/account" + (f" (for example as {email})" if email else ""),
            "  read the mails": f"{opened.url}/mails",
            "  privacy policy": f"{opened.url}/privacy",
        }
    )
    output.print_line()


def _print_summary(summary: Summary, locale: str) -> None:
    played, states, sent = summary.played, summary.events, sum(summary.sent.values())
    output.print_line(
        f"{played.months} months, {played.subscribers} subscribers: {played.posted:,} webhooks posted, "
        f"{summary.accepted:,} events accepted, {states.get('handled', 0):,} handled, "
        f"{states.get('parked', 0):,} parked, "
        f"{sent:,} mails sent."
    )
    output.print_line()
    output.print_table(("subscriptions", ""), sorted(summary.subscriptions.items()), numbers=("",))
    output.print_line()
    output.print_table(
        ("payments", "number", "received", "refunded"),
        [
            (each.currency, each.payments, _price(each.amount, each, locale), _price(each.refunded, each, locale))
            for each in summary.takings
        ],
        numbers=("number", "received", "refunded"),
    )
    rows = [(kind.replace("_", " "), number) for kind, number in sorted(summary.sent.items())]
    withheld = [("withheld", number)] if (number := summary.mails.get("withheld", 0)) else []
    output.print_line()
    output.print_table(("mails", ""), rows + withheld, numbers=("",))
    output.print_line()
    if not summary.complete:
        output.print_line(
            "The demo is not complete. See: smt-billing parked list, and smt-billing mail list --state queued"
        )


def _price(amount: int, takings: PaymentTotals, locale: str) -> str:
    return format_money(Money(amount, takings.currency), locale) if amount else ""


def _own_name() -> str:
    """Return how this program was called, so that the printed commands can be copied."""
    called = Path(sys.argv[0])
    if called.name != "smt-billing":
        return "python -m pipeline"
    return "smt-billing" if shutil.which("smt-billing") else str(called)

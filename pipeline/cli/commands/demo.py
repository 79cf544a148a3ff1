"""`smt-billing demo`: a vendor's first months in one process, at high speed, and a page with the mails they caused."""

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
from pipeline.demo.summary import PaymentTotals, Summary, as_json, summarize
from pipeline.money import Money, format_money
from pipeline.settings import Settings

PORT = 8025


def demo(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Play, say what came of it, and end; exit 1 unless all went well.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw an earlier demo in this data folder away first.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"Where the page of mails is: {PORT} unless told, 0 for any.")
    ] = None,
    months: Annotated[int | None, typer.Option(min=1, max=60, help="How many months to play; 6 unless told.")] = None,
    subscribers: Annotated[
        int | None, typer.Option(min=1, max=5000, help="How many customers; 24 unless told.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, other customers and other months.")] = None,
    json: Annotated[bool, typer.Option("--json", help="What came of it as one JSON object on one line.")] = False,
) -> None:
    """Needs no settings. Its data stays in SMT_DATA_DIR (./var) and its time ends now, so every other command works on it
    afterwards. A folder that holds an earlier demo shows that one again; one that holds other events is refused.
    """
    call = context_of(context)
    terms = DemoOptions(months, subscribers, seed)
    locale = call.settings.locale

    def make_parts(settings: Settings, clock: Clock) -> Container:
        return Container(settings, call.handlers(), clock)

    def date(at: datetime) -> str:
        return output.format_moment(at, locale).removesuffix(" UTC")

    with (
        open_demo_folder(call.settings, terms, fresh=fresh) as earlier,
        environment.open_environment(
            call.settings.data_dir, make_parts, date, port=0 if once else port, usual_port=PORT
        ) as opened,
    ):
        summary = _show_or_play(opened, earlier)
        _say(summary, opened, json=json, once=once)
        if not once:
            run_live(opened)
    if not summary.complete and once:
        raise typer.Exit(1)


def _show_or_play(opened: DemoEnvironment, earlier: DemoRun) -> Summary:
    if earlier.is_done:
        output.print_note(
            f"showing the demo that was played on {earlier.ended_at:%Y-%m-%d %H:%M} UTC; --fresh plays a new one"
        )
    else:
        earlier = play(opened, earlier, output.progress)
    return summarize(opened.parts.database, earlier, opened.caught)


def _say(summary: Summary, opened: DemoEnvironment, *, json: bool, once: bool) -> None:
    if json:
        output.print_json(as_json(summary))
        return
    _draw(summary, opened.parts.settings.locale)
    if not once:
        output.print_line(f"The mails: {opened.url}/mails")
    command, subscription = _own_name(), summary.worth_a_look
    output.print_line("What they came from:")
    for words in (
        "subscriptions list",
        *([f"subscriptions show {subscription}"] if subscription else []),
        "events list --type PAYMENT.SALE.REFUNDED",
        "mail list --kind payment_failed",
        "doctor",
        *([] if once else [f"simulate refund --url {opened.url}/webhooks/paypal --webhook-id {opened.webhook_id}"]),
    ):
        output.print_line(f"  {command} {words}")
    output.print_line(f"All of it stays in {opened.parts.settings.data_dir}." + ("" if once else " Ctrl-C ends."))


def _draw(summary: Summary, locale: str) -> None:
    """For people."""
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
        ("payments in", "", "came", "given back"),
        [
            (each.currency, each.payments, _price(each.amount, each, locale), _price(each.refunded, each, locale))
            for each in summary.takings
        ],
        numbers=("", "came", "given back"),
    )
    rows = [(kind.replace("_", " "), number) for kind, number in sorted(summary.sent.items())]
    withheld = [("withheld as old news", number)] if (number := summary.mails.get("withheld", 0)) else []
    output.print_line()
    output.print_table(("mails", ""), rows + withheld, numbers=("",))
    output.print_line()
    if not summary.complete:
        output.print_line("Not all went as it should: see smt-billing parked list, and mail list --state owed.")


def _price(amount: int, takings: PaymentTotals, locale: str) -> str:
    return format_money(Money(amount, takings.currency), locale) if amount else ""


def _own_name() -> str:
    """How this program was called, so that the commands can be copied."""
    called = Path(sys.argv[0])
    if called.name != "smt-billing":
        return "python -m pipeline"
    return "smt-billing" if shutil.which("smt-billing") else str(called)

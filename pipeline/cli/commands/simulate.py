"""`smt-billing simulate`: post a simulated customer's signed events to a running receiver."""

import secrets
from collections.abc import Mapping
from random import Random
from typing import Annotated

import typer

from pipeline.cli import output
from pipeline.cli.context import CommandContext, Json, context_of
from pipeline.cli.time_options import parse_time_option
from pipeline.demo.simulated_paypal import open_signer, trust_certificate, webhook_to_sign_for
from pipeline.errors import UsageError
from pipeline.operations.role_check import local_host
from pipeline.settings import Settings
from pipeline.simulator.scenarios import SCENARIOS, Scenario
from pipeline.simulator.server.delivery import WebhookSender
from pipeline.simulator.simulation import deliveries_of, plans_by_name
from pipeline.simulator.timeline import Delivery


def simulate(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    ctx: typer.Context,
    scenario: Annotated[str, typer.Argument(help="The name of a scenario; `list` lists them.")],
    url: Annotated[
        str | None, typer.Option(help="URL of the receiver; default: the web role's URL from the settings.")
    ] = None,
    webhook_id: Annotated[
        str | None,
        typer.Option(
            help="The webhook id to sign for; default: the first one in the settings, or PayPal's simulator if accepted."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Start of the scenario: a day, a time, 30d, or now; default: such that the scenario ends now."
        ),
    ] = None,
    plan: Annotated[
        str, typer.Option(help="licence, cloud, cloud_japan, cloud_seats, cloud_trial or onboarding.")
    ] = "cloud",
    customers: Annotated[int, typer.Option(min=1, help="Number of customers.")] = 1,
    seed: Annotated[
        str | None, typer.Option(help="The same seed and start give the same events; default: random.")
    ] = None,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Post the events out of order, and some of them twice.")
    ] = False,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Number of parallel connections.")] = 1,
    json: Json = False,
) -> None:
    """The receiver must use the same SMT_DATA_DIR, because the simulated certificate is stored there.

    Refused if SMT_PAYPAL_BASE_URL is PayPal's live API. As in production, events older than seven days queue no mail, and
    events in the future are parked unless SMT_PAYPAL_MAX_AHEAD_DAYS of the receiver allows them.
    Exit 1 unless all events are answered with 200.
    """
    if scenario == "list":
        _list_scenarios(SCENARIOS, json)
        return
    if scenario not in SCENARIOS:
        raise UsageError(f"there is no scenario {scenario}; the scenarios are: {', '.join(SCENARIOS)}")
    plans = plans_by_name()
    context = context_of(ctx)
    signed_for = webhook_to_sign_for(context.settings, webhook_id)
    if plan not in plans:
        raise UsageError(f"there is no plan {plan}; the plans are: {', '.join(plans)}")
    now = context.clock.now()
    begin = now if start == "now" else parse_time_option(start, "--start", now)
    rng = Random(seed or secrets.token_hex(8))  # noqa: S311 - simulated data, not a secret
    deliveries = deliveries_of(SCENARIOS[scenario], plans[plan], customers, rng, begin, now, shuffled=shuffled)
    answers = _post(context, deliveries, url or _own_url(context.settings), signed_for, at_once)
    _report(answers, json)


def _post(
    context: CommandContext, deliveries: list[Delivery], url: str, webhook_id: str, at_once: int
) -> dict[int, int]:
    """Store the certificate, then post the events. Return the number of answers by HTTP status."""
    if not deliveries:
        return {}
    signer = open_signer(context.settings, deliveries[0].at, max(deliveries[-1].at, context.clock.now()))
    trust_certificate(context.settings, context.clock, signer)
    try:
        sender = WebhookSender(url, signer, webhook_id, tries=1, clock=context.clock)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with sender, output.progress("posting", len(deliveries)) as done:
        return dict(sender.deliver(deliveries, at_once=at_once, done=lambda *_: done(1)))


def _own_url(settings: Settings) -> str:
    host = local_host(settings)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.web_port}/webhooks/paypal"


def _report(answers: dict[int, int], json: bool) -> None:
    accepted = sum(number for status, number in answers.items() if 200 <= status < 300)
    posted = sum(answers.values())
    if json:
        output.print_json(
            {"posted": posted, "accepted": accepted, "answers": {str(key): answers[key] for key in sorted(answers)}}
        )
    else:
        others = [
            f"{number} with {status or 'no answer'}"
            for status, number in sorted(answers.items())
            if not 200 <= status < 300
        ]
        output.print_line(f"{posted} events posted, {accepted} accepted" + (f", {', '.join(others)}" if others else ""))
    if accepted != posted:
        raise typer.Exit(1)


def _list_scenarios(scenarios: Mapping[str, Scenario], json: bool) -> None:
    descriptions = {
        name: " ".join((scenario.__doc__ or "").split()).partition(". ")[0].removesuffix(".")
        for name, scenario in scenarios.items()
    }
    if json:
        output.print_json([{"name": name, "about": about} for name, about in descriptions.items()])
    else:
        output.print_pairs(descriptions)

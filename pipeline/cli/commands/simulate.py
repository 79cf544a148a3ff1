"""`smt-billing simulate`: a pretend customer's story, signed and posted to an ingress that runs."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import output as say
from pipeline.cli.context import Call, Json, of
from pipeline.errors import Wrong

if TYPE_CHECKING:
    from random import Random

    from pipeline.settings import Settings
    from pipeline.simulator.people import Person
    from pipeline.simulator.plans import Plan
    from pipeline.simulator.stories import Story
    from pipeline.simulator.timeline import Delivery

LIVE = "https://api-m.paypal.com"
DISORDER = timedelta(days=2)  # how far --shuffled moves an event


def register(app: typer.Typer) -> None:
    """Put this command into the program."""
    app.command()(simulate)


def simulate(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    context: typer.Context,
    story: Annotated[str, typer.Argument(help="The story's name; `list` names them.")],
    url: Annotated[
        str | None, typer.Option(help="Where the ingress listens; that of the settings unless told.")
    ] = None,
    webhook_id: Annotated[
        str | None,
        typer.Option(
            help="The webhook to sign for; unless told the first that is set, or PayPal's simulator where that is accepted."
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="When the story begins: a day, a time, or now. So that it ends now, unless told.")
    ] = None,
    plan: Annotated[
        str, typer.Option(help="licence, cloud, cloud_japan, cloud_seats, cloud_trial or onboarding.")
    ] = "cloud",
    customers: Annotated[int, typer.Option(min=1, help="How many live this story.")] = 1,
    seed: Annotated[
        str | None, typer.Option(help="The same seed and start tell the same story; random unless told.")
    ] = None,
    shuffled: Annotated[bool, typer.Option("--shuffled", help="In disorder, and some events twice.")] = False,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Connections to post over at once.")] = 1,
    json: Json = False,
) -> None:
    """Play a customer's story to a running ingress over HTTP, signed as PayPal signs, but with a key of our own.

    The ingress must share SMT_DATA_DIR: the certificate is put among those it keeps there. Nothing is ever played
    beside live credentials. Events older than seven days owe no mail, as in life. Exit 1 unless all were answered 200.
    """
    from pipeline.simulator.stories import STORIES

    if story == "list":
        _list_stories(STORIES, json)
        return
    if story not in STORIES:
        raise Wrong(f"there is no story {story}; there are: {', '.join(STORIES)}")
    call = of(context)
    signed_for = _webhook_id(call.settings, webhook_id)
    deliveries = _tell(call, story, plan, customers, seed, start, shuffled=shuffled)
    answers = _post(call, deliveries, url or _own_url(call.settings), signed_for, at_once)
    _report(answers, json)


def _tell(
    call: Call, story: str, plan: str, customers: int, seed: str | None, start: str | None, *, shuffled: bool
) -> "list[Delivery]":
    """The story of each customer, all together by time; up to now where they begin in the past."""
    import secrets
    from random import Random

    from pipeline.simulator import plans, stories
    from pipeline.simulator.people import crowd
    from pipeline.simulator.timeline import by_time, disorder

    names = {name.lower(): value for name, value in vars(plans).items() if isinstance(value, plans.Plan)}
    if plan not in names:
        raise Wrong(f"there is no plan {plan}; there are: {', '.join(sorted(names))}")
    now, begin = call.clock.now(), _begin(start, call.clock.now())
    rng = Random(seed or secrets.token_hex(8))  # noqa: S311 - a story, no secret
    told: list[Delivery] = []
    for person in crowd(customers, rng):
        told += _life(stories.STORIES[story], person, names[plan], rng, begin, now)
    ordered = by_time(told)
    return disorder(ordered, rng, duplicates=0.2, delayed=0.4, shuffle=DISORDER) if shuffled else ordered


def _life(
    story: "Story", person: "Person", plan: "Plan", rng: "Random", begin: datetime | None, now: datetime
) -> "list[Delivery]":
    """One customer's story: to its end if it begins now, up to now if it began before, else ending now."""
    from pipeline.simulator import stories

    if begin is None:
        return stories.ending_by(now, story, person, plan, rng)
    told = story(person, plan, begin, rng)
    return told if begin >= now else [each for each in told if each.at <= now]


def _begin(start: str | None, now: datetime) -> datetime | None:
    from pipeline.cli.time_options import read

    return now if start == "now" else read(start, "--start")


def _post(call: Call, deliveries: "list[Delivery]", url: str, webhook_id: str, at_once: int) -> dict[int, int]:
    """Put the certificate where the ingress finds it, then post; how many ended with which status."""
    from pipeline.demo.simulated_paypal import open_signer, vouch
    from pipeline.simulator.server.delivery import Courier

    if not deliveries:
        return {}
    signer = open_signer(call.settings, deliveries[0].at, max(deliveries[-1].at, call.clock.now()))
    vouch(call.settings, call.clock, signer)
    try:
        courier = Courier(url, signer, webhook_id, tries=1)
    except ValueError as error:
        raise Wrong(str(error)) from error
    with courier, say.progress("posting", len(deliveries)) as done:
        return dict(courier.deliver(deliveries, at_once=at_once, done=lambda *_: done(1)))


def _webhook_id(settings: "Settings", given: str | None) -> str:
    from pipeline.settings import SIMULATOR

    if settings.paypal_base_url.rstrip("/") == LIVE:
        raise Wrong("SMT_PAYPAL_BASE_URL is PayPal's live API: pretend customers must not get into live books")
    if given or settings.paypal_accept_simulator:
        return given or SIMULATOR
    settings.need("paypal_webhook_id")
    return settings.paypal_webhook_id[0]


def _own_url(settings: "Settings") -> str:
    from pipeline.cli.commands.run import EVERYWHERE

    host = EVERYWHERE.get(settings.web_host, settings.web_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.web_port}/webhooks/paypal"


def _report(answers: dict[int, int], json: bool) -> None:
    accepted = sum(number for status, number in answers.items() if 200 <= status < 300)
    posted = sum(answers.values())
    if json:
        say.json(
            {"posted": posted, "accepted": accepted, "answers": {str(key): answers[key] for key in sorted(answers)}}
        )
    else:
        others = [
            f"{number} with {status or 'no answer'}"
            for status, number in sorted(answers.items())
            if not 200 <= status < 300
        ]
        say.line(f"{posted} events posted, {accepted} accepted" + (f", {', '.join(others)}" if others else ""))
    if accepted != posted:
        raise typer.Exit(1)


def _list_stories(stories: dict[str, Any], json: bool) -> None:
    told = {
        name: " ".join((story.__doc__ or "").split()).partition(". ")[0].removesuffix(".")
        for name, story in stories.items()
    }
    if json:
        say.json([{"name": name, "about": about} for name, about in told.items()])
    else:
        say.pairs(told)

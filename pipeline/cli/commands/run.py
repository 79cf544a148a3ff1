"""`smt-billing run`, one command for each role, and `health`, which says whether a role is well."""

import http.client
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.cli import output as say
from pipeline.cli.context import Call, of
from pipeline.errors import Wrong

if TYPE_CHECKING:
    from pipeline.app.container import Parts
    from pipeline.app.roles import Stop

Role = Literal["web", "worker", "mailer", "scheduler"]
ANSWER_SECONDS = 3.0  # a web role that takes longer over /healthz is not well
# What cannot be asked at is asked at this machine: these mean "every address".
EVERYWHERE = {str(ip_address(0)): "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def register(app: typer.Typer) -> None:
    """Put these commands into the program."""
    for command in (run, web, worker, mailer, scheduler, health):
        app.command()(command)


def run(
    context: typer.Context,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Do what is due now, without the web role, and end.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --until-idle: what was done, as JSON.")] = False,
) -> None:
    """Run all roles in this process, until Ctrl-C or SIGTERM; the tables are brought up to date first.

    Needs SMT_PAYPAL_WEBHOOK_ID to check signatures by. Without SMT_SMTP_URL mail stays owed.
    """
    call = of(context)
    if until_idle:
        _until_idle(call, json)
        return
    if json:
        raise Wrong("--json goes with --until-idle")
    _need_webhook_id(call)
    _serve("everything", call.parts)


def web(context: typer.Context) -> None:
    """Take in PayPal's webhooks at http://SMT_WEB_HOST:SMT_WEB_PORT/webhooks/paypal; also /healthz and /metrics."""
    _need_webhook_id(of(context))
    _alone(of(context), "web")


def worker(context: typer.Context) -> None:
    """Handle events, and ask PayPal what they lack. Any number of these may run."""
    _alone(of(context), "worker")


def mailer(context: typer.Context) -> None:
    """Send the mails that are owed, through SMT_SMTP_URL. Any number of these may run."""
    of(context).settings.need("smtp_url")
    _alone(of(context), "mailer")


def scheduler(context: typer.Context) -> None:
    """Do what is due: renewal reminders, mails of dead mailers and in doubt, parked events, erasures, retention."""
    _alone(of(context), "scheduler")


def health(context: typer.Context, role: Annotated[Role, typer.Argument(help="The role to ask about.")]) -> None:
    """Say whether a role is well, on the machine it runs on: exit 0 if so, else 1. For health checks of containers."""
    found = _ask_web(of(context)) if role == "web" else _ask_file(of(context), role)
    say.line(f"{role}: {found or 'well'}")
    if found:
        raise typer.Exit(1)


def _alone(call: Call, role: Role) -> None:
    """One role as a process of its own. Raises SettingsError where it cannot be one."""
    call.parts.need_shared_broker(role)
    call.parts.need_tables()
    _serve(role, call.parts)


def _serve(name: str, parts: "Parts") -> None:
    from pipeline.app import logging as logs
    from pipeline.app import roles
    from pipeline.network import egress
    from pipeline.operations import file_permissions as permissions

    logs.set_up(logs.INFO)
    permissions.demand(parts.settings)
    egress.guard(parts.settings)
    _ = parts.master  # what is wrong with it is said once, and not by each role as it dies
    roles.collect_seldom()
    stop = roles.Stop()
    stop.listen()
    serving: Callable[[Parts, Stop], None] = getattr(roles, name)
    try:
        serving(parts, stop)
    except SystemExit as error:  # uvicorn's way to say that it cannot begin; it has logged why
        where = f"{parts.settings.web_host}:{parts.settings.web_port}"
        raise Wrong(f"cannot listen on {where}; another program may: see SMT_WEB_PORT", found=True) from error
    if stop.failed:
        raise typer.Exit(1)


def _need_webhook_id(call: Call) -> None:
    if not call.settings.paypal_accept_simulator:
        call.settings.need("paypal_webhook_id")


def _until_idle(call: Call, json: bool) -> None:
    from pipeline.app import roles
    from pipeline.db import migrations
    from pipeline.operations import file_permissions as permissions

    permissions.demand(call.settings)
    migrations.upgrade(call.parts.database)
    before = _states(call)
    with say.progress("working", None) as done:
        roles.until_idle(call.parts, done)
    after = _states(call)
    moved = {
        part: {state: after[part].get(state, 0) - before[part].get(state, 0) for state in names}
        for part, names in (
            ("events", ("handled", "ignored", "parked")),
            ("mails", ("sent", "doubt", "failed", "withheld")),
        )
    }
    waiting = {"events": after["events"].get("received", 0), "mails": after["mails"].get("queued", 0)}
    if json:
        say.json({part: {**moved[part], "waiting": waiting[part]} for part in moved})
        return
    without_relay = "" if call.settings.smtp_url or not waiting["mails"] else " (no SMT_SMTP_URL)"
    say.line(f"{_spoken('events', moved, waiting)}; {_spoken('mails', moved, waiting)}{without_relay}")


def _spoken(part: str, moved: dict[str, dict[str, int]], waiting: dict[str, int]) -> str:
    said = [f"{max(number, 0):,} {state}" for state, number in moved[part].items() if number > 0]
    return f"{part}: " + ", ".join([*said, f"{waiting[part]:,} waiting"])


def _states(call: Call) -> dict[str, dict[str, int]]:
    from pipeline.db.models import Event, Mail
    from pipeline.queries import listing as looks

    with call.parts.database.reading() as session:
        return {"events": looks.states(session, Event), "mails": looks.states(session, Mail)}


def _ask_web(call: Call) -> str:
    """What is wrong with the web role, "" if nothing is."""
    settings = call.settings
    host = EVERYWHERE.get(settings.web_host, settings.web_host)
    connection = http.client.HTTPConnection(host, settings.web_port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        said: Any = answer.read(10_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from http://{host}:{settings.web_port}/healthz ({type(error).__name__})"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{answer.status} {said}"


def _ask_file(call: Call, role: str) -> str:
    from pipeline.operations.heartbeat import ALIVE_SECONDS, is_alive

    return (
        ""
        if is_alive(call.settings.data_dir, role, call.clock.now())
        else f"no sign of life for {ALIVE_SECONDS} seconds"
    )

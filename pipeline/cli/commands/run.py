"""`smt-billing run`, and one command for each role."""

from collections.abc import Callable
from typing import Annotated

import typer

from pipeline.app import logging, roles
from pipeline.app.container import Container
from pipeline.app.run_until_idle import run_until_idle as work_until_idle
from pipeline.app.shutdown import StopSignal
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import CommandContext, context_of
from pipeline.db import migrations
from pipeline.db.models import Event, Mail
from pipeline.errors import OperatorError, UsageError
from pipeline.network import egress
from pipeline.operations import file_permissions
from pipeline.queries.listing import states

# What `run --until-idle` counts: the states in which events and mails can end.
ENDS = {"events": ("handled", "ignored", "parked"), "mails": ("sent", "doubt", "failed", "withheld")}
States = dict[str, dict[str, int]]


def run(
    context: typer.Context,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Do what is due now, without the web role, and exit.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --until-idle: what was done, as JSON.")] = False,
) -> None:
    """The tables are upgraded first.

    Needs SMT_PAYPAL_WEBHOOK_ID to check signatures. Without SMT_SMTP_URL mails stay queued.
    """
    call = context_of(context)
    if until_idle:
        _run_until_idle(call, json)
        return
    if json:
        raise UsageError("--json goes with --until-idle")
    _need_webhook_id(call)
    _serve(container_of(call), roles.run_all)


def web(context: typer.Context) -> None:
    """Needs SMT_PAYPAL_WEBHOOK_ID to check signatures."""
    _need_webhook_id(context_of(context))
    _serve_alone(context_of(context), "web", roles.run_web)


def worker(context: typer.Context) -> None:
    """Any number of these may run."""
    _serve_alone(context_of(context), "worker", roles.run_worker)


def mailer(context: typer.Context) -> None:
    """Any number of these may run."""
    context_of(context).settings.require("smtp_url")
    _serve_alone(context_of(context), "mailer", roles.run_mailer)


def scheduler(context: typer.Context) -> None:
    """SIGTERM and Ctrl-C end it after the job under way."""
    _serve_alone(context_of(context), "scheduler", roles.run_scheduler)


def _serve_alone(context: CommandContext, name: str, role: Callable[[Container, StopSignal], None]) -> None:
    """Run one role as a process of its own. Raises SettingsError where it cannot be one."""
    parts = container_of(context)
    parts.require_shared_broker(name)
    parts.require_tables()
    _serve(parts, role)


def _serve(container: Container, role: Callable[[Container, StopSignal], None]) -> None:
    logging.set_up(logging.INFO)
    file_permissions.require_private(container.settings)
    egress.install_guard(container.settings)
    _ = container.master_key  # a problem with it is reported once, and not by each role as it dies
    roles.tune_gc()
    stop = StopSignal()
    stop.install()
    try:
        role(container, stop)
    except SystemExit as error:  # uvicorn's way to say that it cannot begin; it has logged why
        where = f"{container.settings.web_host}:{container.settings.web_port}"
        raise OperatorError(f"cannot listen on {where}; another program may: see SMT_WEB_PORT") from error
    if stop.failed:
        raise typer.Exit(1)


def _need_webhook_id(context: CommandContext) -> None:
    if not context.settings.paypal_accept_simulator:
        context.settings.require("paypal_webhook_id")


def _run_until_idle(context: CommandContext, json: bool) -> None:
    parts = container_of(context)
    file_permissions.require_private(context.settings)
    migrations.upgrade(parts.database)
    before = _states(parts)
    with output.progress("working", None) as done:
        work_until_idle(parts, done)
    after = _states(parts)
    moved = {
        part: {state: after[part].get(state, 0) - before[part].get(state, 0) for state in ends}
        for part, ends in ENDS.items()
    }
    waiting = {"events": after["events"].get("received", 0), "mails": after["mails"].get("queued", 0)}
    if json:
        output.print_json({part: {**moved[part], "waiting": waiting[part]} for part in moved})
        return
    without_relay = "" if context.settings.smtp_url or not waiting["mails"] else " (no SMT_SMTP_URL)"
    output.print_line("; ".join(_summary(part, moved[part], waiting[part]) for part in moved) + without_relay)


def _summary(part: str, moved: dict[str, int], waiting: int) -> str:
    counts = [f"{number:,} {state}" for state, number in moved.items() if number > 0]
    return f"{part}: " + ", ".join([*counts, f"{waiting:,} waiting"])


def _states(container: Container) -> States:
    with container.database.reading() as session:
        return {"events": states(session, Event), "mails": states(session, Mail)}

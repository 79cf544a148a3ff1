"""`smt-billing run`, which runs all roles, and one command per role."""

from collections.abc import Callable
from typing import Annotated

import typer

from pipeline.app import logging, roles
from pipeline.app.container import Container
from pipeline.app.run_until_idle import run_until_idle as work_until_idle
from pipeline.app.shutdown import StopSignal
from pipeline.app.start_requirements import require_startable
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import CommandContext, context_of
from pipeline.db import migrations
from pipeline.db.models import Event, Mail
from pipeline.errors import OperatorError, UsageError
from pipeline.network import egress
from pipeline.operations import file_permissions
from pipeline.queries.listing import states
from pipeline.settings import Settings

# The final states of events and mails, which `run --until-idle` counts.
FINAL_STATES = {"events": ("handled", "ignored", "parked"), "mails": ("sent", "doubt", "failed", "withheld")}
States = dict[str, dict[str, int]]


def run(
    ctx: typer.Context,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Process everything due, without the web role, then exit.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --until-idle: print the result as JSON.")] = False,
) -> None:
    """Upgrades the tables first.

    Needs SMT_PAYPAL_WEBHOOK_ID to verify signatures. Without SMT_SMTP_URL, mails stay queued.
    """
    context = context_of(ctx)
    if until_idle:
        _run_until_idle(context, json)
        return
    if json:
        raise UsageError("--json needs --until-idle")
    require_startable(context.settings, "run")
    _serve(container_of(context), roles.run_all)


def web(ctx: typer.Context) -> None:
    """Needs SMT_PAYPAL_WEBHOOK_ID to verify signatures."""
    _serve_alone(context_of(ctx), "web", roles.run_web)


def worker(ctx: typer.Context) -> None:
    """Several workers may run at the same time."""
    _serve_alone(context_of(ctx), "worker", roles.run_worker)


def mailer(ctx: typer.Context) -> None:
    """Several mailers may run at the same time."""
    _serve_alone(context_of(ctx), "mailer", roles.run_mailer)


def scheduler(ctx: typer.Context) -> None:
    """SIGTERM and Ctrl-C finish the current job, then exit."""
    _serve_alone(context_of(ctx), "scheduler", roles.run_scheduler)


def _serve_alone(context: CommandContext, name: str, role: Callable[[Container, StopSignal], None]) -> None:
    """Run one role in this process. Raises SettingsError if the broker serves one process only."""
    require_startable(context.settings, name)
    container = container_of(context)
    container.require_shared_broker(name)
    container.require_tables()
    _serve(container, role)


def _serve(container: Container, role: Callable[[Container, StopSignal], None]) -> None:
    logging.set_up(logging.INFO)
    file_permissions.require_private(container.settings)
    egress.install_guard(container.settings)
    _ = container.master_key  # reports a problem with the key once, before any role starts
    roles.tune_gc()
    stop = StopSignal()
    stop.install()
    try:
        role(container, stop)
    except SystemExit as error:  # uvicorn exits if it cannot start; it has logged the reason
        raise OperatorError(_port_in_use(container.settings)) from error
    if stop.failed:
        raise typer.Exit(1)


def _port_in_use(settings: Settings) -> str:
    addresses = f"{settings.web_host}:{settings.web_port} (SMT_WEB_PORT)"
    if settings.metrics_host:
        addresses += f" or {settings.metrics_host}:{settings.metrics_port} (SMT_METRICS_PORT)"
    return f"cannot listen on {addresses}. Another program may use the port: stop it, or change the setting"


def _run_until_idle(context: CommandContext, json: bool) -> None:
    require_startable(context.settings, "run --until-idle")
    container = container_of(context)
    file_permissions.require_private(context.settings)
    migrations.upgrade(container.database)
    before = _states(container)
    with output.progress("processing", None) as done:
        work_until_idle(container, done)
    after = _states(container)
    added = {
        table: {state: after[table].get(state, 0) - before[table].get(state, 0) for state in final}
        for table, final in FINAL_STATES.items()
    }
    waiting = {"events": after["events"].get("received", 0), "mails": after["mails"].get("queued", 0)}
    if json:
        output.print_json({table: {**added[table], "waiting": waiting[table]} for table in added})
        return
    without_relay = "" if context.settings.smtp_url or not waiting["mails"] else " (no SMT_SMTP_URL)"
    output.print_line("; ".join(_summary(table, added[table], waiting[table]) for table in added) + without_relay)


def _summary(table: str, added: dict[str, int], waiting: int) -> str:
    counts = [f"{number:,} {state}" for state, number in added.items() if number > 0]
    return f"{table}: " + ", ".join([*counts, f"{waiting:,} waiting"])


def _states(container: Container) -> States:
    with container.database.reading() as session:
        return {"events": states(session, Event), "mails": states(session, Mail)}

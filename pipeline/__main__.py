"""Builds the command line: every command by its name. The only module that imports `handlers`, and it does so late."""

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.commands import backup as backups
from pipeline.cli.commands import (
    customers,
    db,
    demo,
    doctor,
    events,
    inbound,
    keys,
    mail,
    parked,
    paypal,
    policy,
    retention,
    run,
    simulate,
    subscriptions,
)
from pipeline.cli.context import Call, version_of_program
from pipeline.cli.exit_codes import ending

if TYPE_CHECKING:
    from pipeline.billing.unit_of_work import Handler

NAME = "smt-billing"
EPILOG = (
    "Settings are environment variables SMT_…, also from a .env file; secrets also as SMT_…_FILE. "
    "Exit codes: 0 done, 1 found something wrong, 2 asked wrongly."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code: 0 done, 1 found something wrong, 2 asked wrongly."""
    if arguments is None:
        os.umask(0o077)  # what we write may hold personal data: it is for us alone, whatever the shell's habit
    command = typer.main.get_command(build())
    with ending(NAME), closing(Call(find_handlers)) as call:
        command.main(None if arguments is None else list(arguments), prog_name=NAME, obj=call)


def build() -> typer.Typer:
    """Every command by its name."""
    app = typer.Typer(
        name=NAME,
        help="Takes PayPal's subscription webhooks, keeps the books of each subscription, and mails what is owed.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_first)
    for register in (demo.register, run.register):
        register(app)
    for name, group in (
        ("db", db.app),
        ("events", events.app),
        ("parked", parked.app),
        ("mail", mail.app),
        ("subscriptions", subscriptions.app),
        ("customers", customers.app),
        ("paypal", paypal.app),
        ("keys", keys.app),
        ("backup", backups.app),
        ("retention", retention.app),
        ("policy", policy.app),
    ):
        app.add_typer(group, name=name)
    for register in (inbound.register, simulate.register, doctor.register):
        register(app)
    _reflow(app)
    return app


def find_handlers() -> "Mapping[str, Handler]":
    """Event type -> its function. Imported when a command first needs them, so that --help is quick."""
    from handlers import HANDLERS

    return HANDLERS


def _reflow(app: typer.Typer) -> None:
    """Each paragraph of a command's help as one, so that it fits any terminal; as written it would keep our lines."""
    for command in app.registered_commands:
        paragraphs = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(each.split()) for each in paragraphs.split("\n\n"))
    for group in app.registered_groups:
        if group.typer_instance:
            _reflow(group.typer_instance)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{NAME} {version_of_program()}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and end.")
]


def _first(version: Version = False) -> None:  # noqa: ARG001 - its callback has ended the process if it was asked for
    """Before any command: only its warnings are worth a line, unless it is a role."""
    from pipeline.app import logging as logs

    logs.set_up(logs.WARNING)


if __name__ == "__main__":
    main()

"""Entry point of the command line `smt-billing`. This is the only module that imports `handlers`."""

import os
import resource
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.commands import COMMANDS
from pipeline.cli.exit_codes import exit_on_error
from pipeline.cli.lazy_group import group, lazy_group

if TYPE_CHECKING:
    from pipeline.billing.unit_of_work import Handler

NAME = "smt-billing"
HELP = (
    "Receives PayPal's subscription webhooks, records subscriptions, payments and refunds, and sends billing e-mails."
)
EPILOG = (
    "Settings are environment variables SMT_… or lines of a .env file. To read a setting from a file, set SMT_…_FILE to "
    "its path, in the environment or in .env. "
    "Exit codes: 0 done, 1 found a problem, 2 usage error."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, then exit the process: 0 done, 1 found a problem, 2 usage error."""
    if arguments is None:
        os.umask(0o077)  # files may contain personal data, so only this user may read them
        # A core dump would contain the master key. PR_SET_DUMPABLE would also hide /proc/PID/fd, which `policy check` reads.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    command = typer.main.get_group(build())
    with exit_on_error(NAME):
        command.main(None if arguments is None else list(arguments), prog_name=NAME)


def build() -> typer.Typer:
    """Return the program with all its commands."""
    app = group(name=NAME, cls=lazy_group(COMMANDS), help=HELP, epilog=EPILOG)
    app.callback()(_start)
    return app


def find_handlers() -> "Mapping[str, Handler]":
    """Return the handler of each event type."""
    from handlers import HANDLERS  # noqa: PLC0415 - most commands handle no event, so they do not import handlers

    return HANDLERS


def _print_version(is_requested: bool) -> None:
    if not is_requested:
        return
    try:
        version = metadata.version(NAME)
    except metadata.PackageNotFoundError:
        version = "(not installed; running from source)"
    typer.echo(f"{NAME} {version}")
    raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
]


def _start(ctx: typer.Context, version: Version = False) -> None:  # noqa: ARG001 - its callback did the work
    """Prepare a command. It imports here because `--help` and `--version`, which skip this function, must be fast."""
    from pipeline.app import logging  # noqa: PLC0415

    logging.set_up(logging.WARNING)  # a role sets it to INFO
    ctx.obj = find_handlers  # `pipeline.cli.context.context_of` creates the command's context from it


if __name__ == "__main__":
    main()

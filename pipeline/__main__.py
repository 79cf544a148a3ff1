"""The command line `smt-billing`. The only module that imports `handlers`."""

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.commands import COMMANDS
from pipeline.cli.exit_codes import ending
from pipeline.cli.lazy_group import group, lazy_group

if TYPE_CHECKING:
    from pipeline.billing.unit_of_work import Handler

NAME = "smt-billing"
HELP = "Takes PayPal's subscription webhooks, keeps the books of each subscription, and mails what is owed."
EPILOG = (
    "Settings are environment variables SMT_…, also from a .env file; secrets also as SMT_…_FILE. "
    "Exit codes: 0 done, 1 found a problem, 2 usage error."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code: 0 done, 1 found a problem, 2 usage error."""
    if arguments is None:
        os.umask(0o077)  # files we write may hold personal data: only this user reads them, whatever the shell's umask
    command = typer.main.get_group(build())
    with ending(NAME):
        command.main(None if arguments is None else list(arguments), prog_name=NAME)


def build() -> typer.Typer:
    """The program with all its commands."""
    app = group(name=NAME, cls=lazy_group(COMMANDS), help=HELP, epilog=EPILOG)
    app.callback()(_start)
    return app


def find_handlers() -> "Mapping[str, Handler]":
    """The handler of each event type."""
    from handlers import HANDLERS  # noqa: PLC0415 - most commands handle no event and need not wait for it

    return HANDLERS


def _print_version(is_asked: bool) -> None:
    if not is_asked:
        return
    try:
        version = metadata.version(NAME)
    except metadata.PackageNotFoundError:
        version = "not installed, run from its sources"
    typer.echo(f"{NAME} {version}")
    raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
]


def _start(context: typer.Context, version: Version = False) -> None:  # noqa: ARG001 - its callback has done the work
    """Prepare a command. Runs for every command, but not for `--help` and `--version`: hence the import in here."""
    from pipeline.app import logging  # noqa: PLC0415

    logging.set_up(logging.WARNING)  # a role sets it to INFO
    context.obj = find_handlers  # `pipeline.cli.context.of` makes the command's context with it


if __name__ == "__main__":
    main()

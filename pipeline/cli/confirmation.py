"""Ask before a command does something that cannot be undone. Without a terminal the command needs --yes."""

import sys
from typing import Annotated

import typer

from pipeline.errors import OperatorError, UsageError

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask. Needed without a terminal.")]


def confirm(consequence: str, *, yes: bool, type_again: str = "") -> None:
    """Ask the operator to confirm; return if they do, or if `yes`. `consequence` is a sentence about what will happen.

    With `type_again`, the operator has to enter this text, such as the id of the customer. Raises UsageError without a
    terminal, and OperatorError if the operator does not confirm.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{consequence} Add --yes to do this without a terminal.")
    typer.echo(consequence, err=True)
    if not (_repeats(type_again) if type_again else typer.confirm("Continue?", err=True)):
        raise OperatorError("not confirmed; nothing was changed")


def _repeats(text: str) -> bool:
    return str(typer.prompt(f"Enter {text} to continue", default="", show_default=False, err=True)).strip() == text

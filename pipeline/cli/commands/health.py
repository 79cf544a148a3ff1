"""`smt-billing health`: whether a role runs well, for the health checks of containers."""

from typing import Annotated, Literal

import typer

from pipeline.cli import output
from pipeline.cli.context import of
from pipeline.operations import role_check

Role = Literal["web", "worker", "mailer", "scheduler"]


def health(context: typer.Context, role: Annotated[Role, typer.Argument(help="The role to check.")]) -> None:
    """Exit 0 if it does, else 1. For health checks of containers."""
    call = of(context)
    problem = role_check.problem(call.settings, role, call.clock.now())
    output.line(f"{role}: {problem or 'well'}")
    if problem:
        raise typer.Exit(1)

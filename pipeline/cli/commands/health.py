"""`smt-billing health`: whether a role runs well. Containers call it every half minute, so it imports no database."""

from typing import Annotated, Literal

import typer

from pipeline.cli import output
from pipeline.clock import SystemClock
from pipeline.operations import role_check
from pipeline.settings import load

Role = Literal["web", "worker", "mailer", "scheduler"]


def health(role: Annotated[Role, typer.Argument(help="The role to check.")]) -> None:
    """Exit 0 if it does, else 1. For health checks of containers."""
    problem = role_check.problem(load(), role, SystemClock().now())
    output.print_line(f"{role}: {problem or 'well'}")
    if problem:
        raise typer.Exit(1)

"""`smt-billing health`: check a role's health. Containers call it every 30 seconds, so it does not import the database."""

from typing import Annotated, Literal

import typer

from pipeline.cli import output
from pipeline.clock import SystemClock
from pipeline.operations import role_check
from pipeline.settings import load

Role = Literal["web", "worker", "mailer", "scheduler"]


def health(role: Annotated[Role, typer.Argument(case_sensitive=False, help="The role to check.")]) -> None:
    """Exit 0 if the role is healthy, otherwise 1. For supervisors and container health checks.

    Further lines name other roles and servers that do not answer, and unfinished work. They do not change the exit code.
    """
    settings, now = load(), SystemClock().now()
    problem = role_check.problem(settings, role, now)
    output.print_line(f"{role}: {problem or 'healthy'}")
    for note in role_check.notes(settings, now):
        output.print_line(note)
    if problem:
        raise typer.Exit(1)

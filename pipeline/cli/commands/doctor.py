"""`smt-billing doctor`: checks each thing the pipeline needs, and says what to do about each problem."""

import typer

from pipeline.app.doctor.examine import run_checks
from pipeline.app.doctor.result import CheckResult
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of


def doctor(context: typer.Context, json: Json = False) -> None:
    """One line for each, with what to do about a problem. Exit 1 if a check fails; warnings are no failure."""
    found = run_checks(lambda: container_of(context_of(context)))
    if json:
        output.print_json(
            [{"name": each.name, "state": each.state, "found": each.text, "advice": each.advice} for each in found]
        )
    else:
        output.print_table(("", "checked", "found"), [(each.state, each.name, _spoken(each)) for each in found])
    if any(each.state == "fail" for each in found):
        raise typer.Exit(1)


def _spoken(found: CheckResult) -> str:
    return f"{found.text}\n→ {found.advice}" if found.advice else found.text

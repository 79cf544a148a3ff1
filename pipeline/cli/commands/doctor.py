"""`smt-billing doctor`: check everything that the program needs, and say how to fix each problem."""

import typer

from pipeline.app.doctor.examine import run_checks
from pipeline.app.doctor.result import CheckResult
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of


def doctor(ctx: typer.Context, json: Json = False) -> None:
    """Prints one line per check, with advice for each problem. Exit 1 if a check fails; a warning is not a failure."""
    found = run_checks(lambda: container_of(context_of(ctx)))
    if json:
        output.print_json(
            [{"name": each.name, "state": each.state, "found": each.text, "advice": each.advice} for each in found]
        )
    else:
        output.print_table(("", "checked", "found"), [(each.state, each.name, _with_advice(each)) for each in found])
    if any(each.state == "fail" for each in found):
        raise typer.Exit(1)


def _with_advice(result: CheckResult) -> str:
    return f"{result.text}\n→ {result.advice}" if result.advice else result.text

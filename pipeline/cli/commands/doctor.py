"""`smt-billing doctor`: checks each thing the pipeline needs, and says what to do about each problem."""

import typer

from pipeline.app.doctor.examine import examine
from pipeline.app.doctor.result import Found
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, of


def doctor(context: typer.Context, json: Json = False) -> None:
    """One line for each, with what to do about a problem. Exit 1 if a check fails; warnings are no failure."""
    found = examine(lambda: container_of(of(context)))
    if json:
        output.json(
            [{"name": each.name, "state": each.state, "found": each.text, "advice": each.advice} for each in found]
        )
    else:
        output.table(("", "checked", "found"), [(each.state, each.name, _spoken(each)) for each in found])
    if any(each.state == "fail" for each in found):
        raise typer.Exit(1)


def _spoken(found: Found) -> str:
    return f"{found.text}\n→ {found.advice}" if found.advice else found.text

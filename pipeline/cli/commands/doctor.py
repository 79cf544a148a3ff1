"""`smt-billing doctor`: each thing the pipeline needs, looked at; what is wrong, and what to do about it."""

from typing import TYPE_CHECKING

import typer

from pipeline.cli import output as say
from pipeline.cli.context import Json, of

if TYPE_CHECKING:
    from pipeline.app.doctor.result import Found


def register(app: typer.Typer) -> None:
    """Put this command into the program."""
    app.command()(doctor)


def doctor(context: typer.Context, json: Json = False) -> None:
    """Check settings, files, keys, database, broker, relay, PayPal, certificates, clock, interpreter and templates.

    One line for each, with what to do where something is wrong. Exit 1 if something fails; warnings are no failure.
    """
    from pipeline.app.doctor.examine import examine

    call = of(context)
    found = examine(lambda: call.parts)
    if json:
        say.json(
            [{"name": each.name, "state": each.state, "found": each.text, "advice": each.advice} for each in found]
        )
    else:
        say.table(("", "checked", "found"), [(each.state, each.name, _spoken(each)) for each in found])
    if any(each.state == "fail" for each in found):
        raise typer.Exit(1)


def _spoken(found: "Found") -> str:
    return f"{found.text}\n→ {found.advice}" if found.advice else found.text

"""Reads of personal data are recorded before the data is shown: who reads, whose data, and why."""

from typing import Annotated

import typer

from pipeline.cli.context import CommandContext
from pipeline.privacy import audit_log

# Why each command reads, unless --purpose says more.
PURPOSES = {
    "events show": "operation: what an event said and did",
    "mail list": "operation: which mails went out, and to whom",
    "mail show": "operation: what became of a mail",
    "subscriptions show": "operation: where a subscription stands",
}

Purpose = Annotated[
    str | None,
    typer.Option("--purpose", help="Why you look, for the record of who read what; else this command's own."),
]


def record_read(context: CommandContext, action: str, purpose: str | None, subject: str | None) -> None:
    """Record who reads what of whom, and why. Raises StoreDown: a read that cannot be recorded is not shown."""
    why = purpose or PURPOSES.get(action, "operation")
    with context.database.transaction() as session:
        user = audit_log.this_user()
        audit_log.record_read(session, context.clock.now(), actor=user, action=action, purpose=why, subject=subject)

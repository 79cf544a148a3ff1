"""A read of personal data is written down before it is shown: by whom, of whom, and why."""

from typing import Annotated

import typer

from pipeline.cli.context import Call

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


def note(call: Call, action: str, purpose: str | None, subject: str | None) -> None:
    """Write down who reads what of whom, and why. Raises StoreDown: what cannot be written down is not shown."""
    from pipeline.privacy import audit_log as audit

    why = purpose or PURPOSES.get(action, "operation")
    with call.database.transaction() as session:
        audit.note(session, call.clock.now(), actor=audit.this_user(), action=action, purpose=why, subject=subject)

"""Records each read of personal data before a command shows the data: the user, the customer and the purpose."""

from typing import Annotated

import typer

from pipeline.cli.context import CommandContext
from pipeline.crypto.keyring import Keyring
from pipeline.privacy import audit_log

# The recorded purpose of each command unless --purpose is given.
PURPOSES = {
    "customers list": "operation: list customers",
    "customers list --search": "operation: search customers",
    "events show": "operation: inspect an event",
    "inbound list": "operation: list inbound messages",
    "inbound reply": "request: answer a message",
    "inbound show": "operation: read an inbound message",
    "mail list": "operation: list mails and recipients",
    "mail show": "operation: inspect a mail",
    "subscriptions show": "operation: inspect a subscription",
}

Purpose = Annotated[
    str | None,
    typer.Option("--purpose", help="Why you read this data, for the audit log; default: a purpose for the command."),
]


def record_read(context: CommandContext, action: str, purpose: str | None, subject: str | None) -> None:
    """Record a read of personal data. If that fails, it raises, so that an unrecorded read shows nothing."""
    why = purpose or PURPOSES.get(action, "operation")
    with context.database.transaction() as session:
        now = context.clock.now()
        audit_log.record_read(
            session,
            Keyring(context.master_key, session, now),
            now,
            actor=audit_log.this_user(),
            action=action,
            purpose=why,
            subject=subject,
        )

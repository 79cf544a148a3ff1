"""A read of personal data is written down before it is shown."""

from pipeline.commands.call import Call


def note(call: Call, action: str, purpose: str, subject: str | None) -> None:
    """Write down who reads what of whom, and why. Raises StoreDown: what cannot be written down is not shown."""
    import getpass

    from pipeline.privacy import audit

    with call.database.transaction() as session:
        audit.note(session, call.clock.now(), actor=getpass.getuser(), action=action, purpose=purpose, subject=subject)

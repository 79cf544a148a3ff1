"""How a command ends: 0 done, 1 found something wrong, 2 asked wrongly; errors as one clear line, never a traceback
for what an operator can mend."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.errors import Wrong

# Where each error lives. Looked up only among the modules that are loaded: the others cannot have raised.
ASKED_WRONGLY = (
    ("pipeline.settings", "SettingsError"),
    ("pipeline.crypto.keyring", "KeyProblem"),
    ("pipeline.customers.accounts", "NoSuchCustomer"),
    ("pipeline.network.smtp_url", "SmtpConfigError"),
    ("pipeline.email_address", "BadEnvelope"),
    ("pipeline.paypal.errors", "Malformed"),
    ("pipeline.operations.backup.store", "BackupProblem"),
)
FOUND_WRONG = (
    ("pipeline.db.engine", "StoreDown"),
    ("pipeline.broker", "BrokerDown"),
    ("pipeline.crypto.keyring", "Unsealable"),
    ("pipeline.rendering.templates", "RenderError"),
    ("pipeline.paypal.errors", "Unavailable"),
    ("pipeline.paypal.errors", "Rejected"),
)


@contextmanager
def ending(name: str) -> Iterator[None]:
    """End the process with the right code for whatever the block raises; a fault of ours keeps its traceback."""
    try:
        yield
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        typer.echo(f"{name}: {_said(error)}", err=True)
        sys.exit(code)


def _said(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def exit_code(error: Exception) -> int | None:
    """1 or 2 for an error that an operator can mend, None for a fault of ours."""
    if isinstance(error, Wrong):
        return error.exit_code
    for code, names in ((2, ASKED_WRONGLY), (1, FOUND_WRONG)):
        if isinstance(error, _loaded(names)):
            return code
    return 1 if isinstance(error, OSError) and error.filename is not None else None


def _loaded(names: tuple[tuple[str, str], ...]) -> tuple[type[Exception], ...]:
    return tuple(getattr(importlib.import_module(module), kind) for module, kind in names if module in sys.modules)

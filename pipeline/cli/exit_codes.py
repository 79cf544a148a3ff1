"""How a command ends: 0 done, 1 found a problem, 2 usage error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.errors import OperatorError


@contextmanager
def ending(name: str) -> Iterator[None]:
    """Print an error that the operator can fix as one line, and end with its exit code. Any other error propagates."""
    try:
        yield
    except OperatorError as error:
        _end(f"{name}: {error}", error.exit_code)
    except OSError as error:
        if error.filename is None:  # no file that the operator named or can look at: an internal error
            raise
        _end(f"{name}: {error.filename}: {error.strerror}", OperatorError.exit_code)


def _end(message: str, code: int) -> None:
    typer.echo(message, err=True)
    sys.exit(code)

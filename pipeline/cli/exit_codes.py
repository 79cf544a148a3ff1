"""Exit codes of commands: 0 done, 1 found a problem, 2 usage error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import OperatorError


@contextmanager
def exit_on_error(name: str) -> Iterator[None]:
    """Print an error that the operator can fix as one line, and exit with its code. Any other error propagates."""
    try:
        yield
    except OperatorError as error:
        _exit(f"{name}: {error}", error.exit_code)
    except OSError as error:
        if error.filename is None:  # without a file name the operator cannot fix it: an internal error
            raise
        _exit(f"{name}: {error.filename}: {error.strerror}", OperatorError.exit_code)


def _exit(message: str, code: int) -> None:
    from pipeline.cli.output import print_note  # noqa: PLC0415 - its libraries would slow every command down

    print_note(message)
    sys.exit(code)

"""Errors that the operator can fix. The command line prints the message as one line and exits with the error's code."""


class OperatorError(Exception):
    """A problem that the operator can fix. The message says what happened and what to do next."""

    exit_code = 1


def describe(error: BaseException) -> str:
    """Return the message of an error that the operator can fix, otherwise only its type: its message may be personal data."""
    return str(error) if isinstance(error, OperatorError) else f"internal error ({type(error).__name__})"


class UsageError(OperatorError):
    """A command, a setting or an input file is not usable."""

    exit_code = 2

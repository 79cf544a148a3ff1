"""Errors that the operator can fix. The command line prints the message as one line and exits with the error's code."""


class OperatorError(Exception):
    """A problem that the operator can fix. The message says what happened and what to do next."""

    exit_code = 1


def place_of(error: BaseException) -> str:
    """Return the module and line that raised the error. Unlike its message, they contain no personal data."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_globals.get('__name__')}:{traceback.tb_lineno}" if traceback else "an unknown place"


class UsageError(OperatorError):
    """A command, a setting or an input file is not usable."""

    exit_code = 2

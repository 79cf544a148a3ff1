"""Errors that the operator can fix. The command line prints each as one line and ends with its exit code."""


class OperatorError(Exception):
    """A problem that the operator can fix. The message says what happened and what to do next."""

    exit_code = 1


class UsageError(OperatorError):
    """A command, a setting or an input file that cannot be used as given."""

    exit_code = 2

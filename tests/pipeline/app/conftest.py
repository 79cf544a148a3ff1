"""The command line, which starts the roles, and a mail catcher that they send to."""

from tests.support.command_line import caught, smt

__all__ = ["caught", "smt"]

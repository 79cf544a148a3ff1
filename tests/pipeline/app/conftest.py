"""Fixtures: calls of the command line, which starts the roles, and a mail catcher."""

from tests.support.command_line import caught, smt

__all__ = ["caught", "smt"]

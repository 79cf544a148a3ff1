"""Errors that the command line tells as one line."""


class Wrong(Exception):
    """Asked wrongly (exit 2), or with `found` asked rightly and not as it should be (exit 1). The message is a line."""

    def __init__(self, message: str, *, found: bool = False) -> None:
        super().__init__(message)
        self.exit_code = 1 if found else 2

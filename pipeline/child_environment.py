"""The environment of child processes. Ours may contain secrets in `SMT_…` variables, which no other program needs."""

import os

# Where programs and files are, and how a program writes text and time.
PASSED = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE"})


def child_environment(*prefixes: str, **values: str) -> dict[str, str]:
    """Return the environment for a child process: `PASSED`, `LC_…`, names with one of these prefixes, and these values."""
    passed = ("LC_", *prefixes)
    return {name: value for name, value in os.environ.items() if name in PASSED or name.startswith(passed)} | values

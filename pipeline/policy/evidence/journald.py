"""How long journald keeps what is logged on this machine, as its own settings say.

A journal file goes when its first entry is older than MaxRetentionSec, but not the one that is being written, which is
closed after MaxFileSec: so nothing is older than the longer of the two.
"""

import shutil
import subprocess
from configparser import ConfigParser
from datetime import timedelta
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")  # there where journald takes logs; in a container, as a rule, it is not
ONE_FILE = "1month"  # of journald.conf(5)
ENDLESS = 2**64 - 1  # microseconds, as systemd says "infinity"


class JournaldSettingsError(Exception):
    """journald runs here, and what it is told to keep cannot be found out."""


def is_running() -> bool:
    """Whether journald takes logs on this machine."""
    return SOCKET.exists()


def retention_period(root: Path = Path("/")) -> timedelta | None:
    """The age that an entry may reach; None where there is no end. Raises Unreadable.

    Read by systemd's own tool, which knows where settings lie and which of them counts, below `root`.
    """
    settings = ConfigParser(strict=False, interpolation=None, allow_no_value=True, comment_prefixes=("#", ";"))
    settings.read_string(_ask("cat-config", f"--root={root}", "systemd/journald.conf"))
    told = settings["Journal"] if settings.has_section("Journal") else {}
    if (told.get("Storage") or "").lower() == "none":
        return timedelta(0)
    spans = [_span(told.get("MaxRetentionSec") or "0"), _span(told.get("MaxFileSec") or ONE_FILE)]
    ends = [span for span in spans if span]
    return max(ends) if len(ends) == len(spans) else None


def _span(text: str) -> timedelta | None:
    """A time span of systemd.time(7); None for one that has no end, or is nought, which means the same here."""
    [microseconds] = [
        int(line.partition(":")[2]) for line in _ask("timespan", text).splitlines() if line.strip().startswith("μs:")
    ]
    return timedelta(microseconds=microseconds) if 0 < microseconds < ENDLESS else None


def _ask(*words: str) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        raise JournaldSettingsError("systemd-analyze is not installed")
    try:
        done = subprocess.run(  # noqa: S603 - words of ours, and what the machine's own settings say
            [program, "--no-pager", *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise JournaldSettingsError(f"systemd-analyze {words[0]}: {type(error).__name__}") from error
    return done.stdout

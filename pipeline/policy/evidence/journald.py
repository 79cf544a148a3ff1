"""Read from journald's settings how long it keeps log entries on this machine (journald.conf(5)).

journald deletes a journal file when its first entry is older than MaxRetentionSec, except for the file that it writes.
It closes that file after MaxFileSec. So no entry gets older than the longer of the two.
"""

import shutil
import subprocess
from configparser import ConfigParser
from datetime import timedelta
from pathlib import Path

from pipeline.child_environment import child_environment
from pipeline.error_texts import describe

SOCKET = Path("/run/systemd/journal/socket")  # exists where journald accepts logs; usually not in a container
DEFAULT_MAX_FILE = "1month"  # default of MaxFileSec, journald.conf(5)
INFINITY = 2**64 - 1  # microseconds; systemd's value for "infinity"


class JournaldSettingsError(Exception):
    """journald runs here, but its retention settings cannot be read."""


def is_running() -> bool:
    """Return whether journald accepts logs on this machine."""
    return SOCKET.exists()


def retention_period(root: Path = Path("/")) -> timedelta | None:
    """Return the maximum age of a log entry, or None if it is unlimited. Raises JournaldSettingsError.

    systemd-analyze finds the settings files below `root` and their precedence.
    """
    settings = ConfigParser(strict=False, interpolation=None, allow_no_value=True, comment_prefixes=("#", ";"))
    settings.read_string(_systemd_analyze("cat-config", f"--root={root}", "systemd/journald.conf"))
    journal = settings["Journal"] if settings.has_section("Journal") else {}
    if (journal.get("Storage") or "").lower() == "none":
        return timedelta(0)
    spans = [_span(journal.get("MaxRetentionSec") or "0"), _span(journal.get("MaxFileSec") or DEFAULT_MAX_FILE)]
    limits = [span for span in spans if span]
    return max(limits) if len(limits) == len(spans) else None


def _span(text: str) -> timedelta | None:
    """Parse a time span of systemd.time(7). Return None for infinity and for 0, which means unlimited here."""
    [microseconds] = [
        int(line.partition(":")[2])
        for line in _systemd_analyze("timespan", text).splitlines()
        if line.strip().startswith("μs:")
    ]
    return timedelta(microseconds=microseconds) if 0 < microseconds < INFINITY else None


def _systemd_analyze(*words: str) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        raise JournaldSettingsError("systemd-analyze is not installed")
    try:
        done = subprocess.run(  # noqa: S603 - arguments are constants and the machine's own settings
            [program, "--no-pager", *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env=child_environment(LC_ALL="C.UTF-8"),
        )
    except subprocess.TimeoutExpired as error:
        raise JournaldSettingsError(f"systemd-analyze {words[0]}: no answer in time") from error
    except subprocess.CalledProcessError as error:
        raise JournaldSettingsError(f"systemd-analyze {words[0]}: exit code {error.returncode}") from error
    except OSError as error:
        raise JournaldSettingsError(f"systemd-analyze {words[0]}: {describe(error)}") from error
    return done.stdout

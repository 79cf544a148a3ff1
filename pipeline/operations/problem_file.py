"""The problems that the scheduler found last, in a file: `smt-billing health ROLE` does not open the database."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import structlog

log = structlog.get_logger(__name__)

FILE = ".problems.json"
MAX_AGE = timedelta(minutes=5)  # older problems may be solved; then the scheduler is away, which is reported instead


@dataclass(frozen=True, slots=True)
class Problem:
    """One figure over its limit: its name, a sentence, the number of items, and the command that shows more.

    `stalled`: the pipeline does not progress.
    """

    name: str
    text: str
    count: int
    stalled: bool
    command: str


def write(data_dir: Path, now: datetime, problems: Sequence[Problem]) -> None:
    """Write the problems found now. A failure is logged."""
    file = data_dir / "run" / FILE
    draft = file.with_name(f"{FILE}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_bytes(orjson.dumps({"at": now, "problems": [asdict(problem) for problem in problems]}))
        draft.replace(file)
    except OSError as error:
        log.warning("problem_file_failed", file=str(file), reason=error.strerror)


def read(data_dir: Path, now: datetime) -> list[Problem]:
    """Return the problems that were found in the last MAX_AGE."""
    try:
        content = orjson.loads((data_dir / "run" / FILE).read_bytes())
        if now - datetime.fromisoformat(content["at"]).astimezone(UTC) > MAX_AGE:
            return []
        return [Problem(**problem) for problem in content["problems"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []

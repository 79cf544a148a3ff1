"""Logging to stderr: JSON lines, or readable lines on a terminal. stdout is for the output of commands."""

import json
import logging
import sys
from logging import INFO, WARNING
from typing import Any, TextIO, cast

import orjson
import structlog

from pipeline.limited_log import LimitedLog

__all__ = ["INFO", "WARNING", "set_up"]


def set_up(level: int) -> None:
    """Configure logging from this level on: `WARNING` for short commands, `INFO` for roles."""
    before: list[Any] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *before, *_writers()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Stderr())),
    )
    _libraries(before)


def _writers() -> list[Any]:
    if sys.stderr.isatty():
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _libraries(before: list[Any]) -> None:
    """Send warnings and errors of libraries to the same output."""
    handler = logging.StreamHandler(cast(TextIO, _Stderr()))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_writers()],
        )
    )
    handler.addFilter(_LimitedWarnings())
    logging.basicConfig(handlers=[handler], level=WARNING, force=True)


class _LimitedWarnings(logging.Filter):
    """Passes on one warning a second from each line of a library: strangers cause some with every invalid request."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: list[int] = []  # for the line that is passed on: the number of lines left out before it
        self._limited = LimitedLog(lambda _, lines_left_out=0: self._passed.append(lines_left_out))

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != WARNING:
            return True
        self._passed.clear()
        self._limited(f"{record.name}:{record.lineno}")
        if any(self._passed):
            record.msg, record.args = f"{record.getMessage()} ({self._passed[0]} lines left out)", None
        return bool(self._passed)


class _Stderr:
    """Writes to the current `sys.stderr`, which tests replace."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _json(value: Any, **_: Any) -> str:
    text = orjson.dumps(value, default=str).decode()
    return text if text.isascii() else json.dumps(orjson.loads(text))  # escaped: logs are read on terminals

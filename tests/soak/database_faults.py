"""Inject a database fault at a chosen statement or commit, and an executor that runs everything in one thread.

A fault is armed, happens once, and is then over.
"""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, get_args

from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

# deadlock: the transaction fails at a statement (serialization failure, deadlock or lost connection).
# lost, kept: the answer to a commit is lost; the transaction is rolled back, or is committed.
# The others end the process.
Kind = Literal["deadlock", "lost", "kept", "dies at a statement", "dies before a commit", "dies after a commit"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AT_STATEMENTS = ("deadlock", "dies at a statement")


class Crash(BaseException):
    """The process has died. It is a BaseException, so no `except Exception` stops it, like kill -9."""


class DatabaseFault:
    """At most one armed fault at a time."""

    def __init__(self) -> None:
        self._kind: Kind | None = None
        self._left = 0
        self._paused = False

    def arm(self, kind: Kind, after: int) -> None:
        """Let the fault happen after this number of other statements or commits."""
        self._kind, self._left = kind, after

    def disarm(self) -> None:
        self._kind = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inject nothing inside the block, for code that only checks the tables."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def attach(self, engine: Engine) -> None:
        """Inject the fault into this engine."""
        event.listen(engine, "before_cursor_execute", self._at_statement)
        commit: Callable[[Any], None] = engine.dialect.do_commit
        engine.dialect.do_commit = lambda connection: self._at_commit(commit, connection)  # type: ignore[method-assign, assignment]

    def _at_statement(self, *_: object) -> None:
        kind = self._next_fault(at_statement=True)
        if kind == "deadlock":
            raise OperationalError("a statement", None, Exception("could not serialize access"))
        if kind:
            raise Crash

    def _at_commit(self, commit: Callable[[Any], None], connection: Any) -> None:
        kind = self._next_fault(at_statement=False)
        if kind in ("lost", "dies before a commit"):
            connection.rollback()
        else:
            commit(connection)
        if kind in ("lost", "kept"):
            raise sqlite3.OperationalError("the connection was lost")
        if kind:
            raise Crash

    def _next_fault(self, *, at_statement: bool) -> Kind | None:
        if self._paused or self._kind is None or (self._kind in AT_STATEMENTS) is not at_statement:
            return None
        self._left -= 1
        if self._left >= 0:
            return None
        kind, self._kind = self._kind, None
        return kind


class OneThread(ThreadPoolExecutor):
    """Executor that runs each call at once in the caller's thread: `asyncio.to_thread` without threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the waiting code must get a Crash too
            done.set_exception(error)
        return done

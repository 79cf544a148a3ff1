"""What goes wrong in a store, at a statement or a commit of our choice; and one thread for everything.

A storm waits armed until its moment comes, happens once, and is over.
"""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, get_args

from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

# deadlock: the database gives a transaction up (serialization failure, deadlock, lost connection) at a statement.
# lost, kept: the answer to a commit never comes; what it had to commit is gone, or is there.
# The others end the process.
Kind = Literal["deadlock", "lost", "kept", "dies at a statement", "dies before a commit", "dies after a commit"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AT_STATEMENTS = ("deadlock", "dies at a statement")


class Crash(BaseException):
    """The process is gone. No `except Exception` holds it up, as none holds up kill -9."""


class Storm:
    """At most one misfortune at a time."""

    def __init__(self) -> None:
        self._kind: Kind | None = None
        self._left = 0
        self._paused = False

    def arm(self, kind: Kind, after: int) -> None:
        """It happens at the statement or commit after so many others."""
        self._kind, self._left = kind, after

    def calm(self) -> None:
        self._kind = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing happens meanwhile: for those who only look."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def over(self, engine: Engine) -> None:
        """Let it happen to this engine."""
        event.listen(engine, "before_cursor_execute", self._at_statement)
        commit: Callable[[Any], None] = engine.dialect.do_commit
        engine.dialect.do_commit = lambda connection: self._at_commit(commit, connection)  # type: ignore[method-assign, assignment]

    def _at_statement(self, *_: object) -> None:
        kind = self._comes(at_statement=True)
        if kind == "deadlock":
            raise OperationalError("a statement", None, Exception("could not serialize access"))
        if kind:
            raise Crash

    def _at_commit(self, commit: Callable[[Any], None], connection: Any) -> None:
        kind = self._comes(at_statement=False)
        if kind in ("lost", "dies before a commit"):
            connection.rollback()
        else:
            commit(connection)
        if kind in ("lost", "kept"):
            raise sqlite3.OperationalError("the connection was lost")
        if kind:
            raise Crash

    def _comes(self, *, at_statement: bool) -> Kind | None:
        if self._paused or self._kind is None or (self._kind in AT_STATEMENTS) is not at_statement:
            return None
        self._left -= 1
        if self._left >= 0:
            return None
        kind, self._kind = self._kind, None
        return kind


class OneThread(ThreadPoolExecutor):
    """Runs at once, in the caller's thread, what is to run in another: `asyncio.to_thread` without threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - a crash too is carried to who waits
            done.set_exception(error)
        return done

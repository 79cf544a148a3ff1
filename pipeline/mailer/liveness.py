"""A mailer's sign of life for other processes, and the check whether it is still valid."""

import asyncio
import secrets
import threading
from time import monotonic

from pipeline.db import presence
from pipeline.db.engine import Database

CHECK_SECONDS = 1.0  # maximum age of the last check before a mail's text is transmitted; far below DOUBT_GRACE


class ClaimLiveness:
    """The name under which a mailer claims mails. It is valid while `db.presence` holds its lock in the database.

    If the lock is lost, other processes set the unrecorded claims of this name to `doubt`.
    """

    def __init__(self, database: Database) -> None:
        self.holder = f"mailer-{secrets.token_hex(8)}"
        self._held, self._checked_at = True, monotonic()
        self._presence = presence.hold(database, self.holder)
        self._thread_lock, self._task_lock = threading.Lock(), asyncio.Lock()

    def check(self) -> bool:
        """Ask the database whether the lock is still held."""
        with self._thread_lock:
            now = monotonic()
            self._held = self._presence.still_held()
            self._checked_at = now
            return self._held

    async def is_alive(self) -> bool:
        """Return whether the lock is held; the answer is at most CHECK_SECONDS old.

        If it is false, other mailers may soon send the mails of this name.
        """
        if monotonic() - self._checked_at > CHECK_SECONDS:
            async with self._task_lock:
                if self._held and monotonic() - self._checked_at > CHECK_SECONDS:
                    await asyncio.to_thread(self.check)
        return self._held

    def end(self) -> None:
        """Release the lock. Claims without a recorded result become `doubt`."""
        self._presence.release()

"""How a mailer shows other processes that it is alive, and learns that it has been taken for dead."""

import asyncio
import secrets
import threading
from time import monotonic

from pipeline.db import presence
from pipeline.db.engine import Database

CHECK_SECONDS = 1.0  # how old the knowledge may be that we are seen alive; far below SETTLE_AFTER


class ClaimLiveness:
    """A mailer under one name. Others see it alive as long as its presence lasts, and then its claims are in doubt."""

    def __init__(self, database: Database) -> None:
        self.holder = f"mailer-{secrets.token_hex(8)}"
        self._seen, self._seen_at = True, monotonic()
        self._presence = presence.hold(database, self.holder)
        self._one_check, self._checking = threading.Lock(), asyncio.Lock()

    def check(self) -> bool:
        """Whether others still see it alive; asks the database."""
        with self._one_check:
            now = monotonic()
            self._seen = self._presence.still_held()
            self._seen_at = now
            return self._seen

    async def is_alive(self) -> bool:
        """Whether others still see it alive, as was known a second ago. If not, its claims may be sent by others soon."""
        if monotonic() - self._seen_at > CHECK_SECONDS:
            async with self._checking:
                if self._seen and monotonic() - self._seen_at > CHECK_SECONDS:
                    await asyncio.to_thread(self.check)
        return self._seen

    def end(self) -> None:
        """What it has claimed and not settled is in doubt from now on."""
        self._presence.release()

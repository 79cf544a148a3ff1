"""The way from a page to the tables: work in one transaction, in a thread, off the event loop."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database

Found = TypeVar("Found")
Work = Callable[[Session, Keyring, datetime], Found]


class Transactions:
    """Does work on the tables for pages."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock) -> None:
        self._database, self._master, self._clock = database, master_key, clock

    async def run(self, work: Work[Found]) -> Found:
        """Do it in a transaction of its own. Raises StoreDown, and whatever the work raises."""
        return await asyncio.to_thread(self._do, work)

    def _do(self, work: Work[Found]) -> Found:
        with self._database.transaction() as session:
            now = self._clock.now()
            return work(session, Keyring(self._master, session, now), now)

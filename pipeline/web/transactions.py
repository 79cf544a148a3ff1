"""Run a view's database work in one transaction, in a thread, so that the event loop is not blocked."""

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
    """Runs functions in a transaction with a keyring and the current time."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock) -> None:
        self._database, self._master, self._clock = database, master_key, clock

    async def run(self, work: Work[Found]) -> Found:
        """Run `work` in a new transaction and return its result. Raises DatabaseUnavailableError and its errors."""
        return await asyncio.to_thread(self._run, work)

    def _run(self, work: Work[Found]) -> Found:
        with self._database.transaction() as session:
            now = self._clock.now()
            return work(session, Keyring(self._master, session, now), now)

"""What a check may look at, and what it finds. A check looks at what is there, never at what ought to have been done."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import orjson
from sqlalchemy import ColumnExpressionArgument, func, select
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import DataKey, Keyring
from pipeline.db.models import Base, Customer
from pipeline.policy.clauses import PolicyOwner
from pipeline.policy.evidence.connections import Connection
from pipeline.rendering.message import RenderedMail
from pipeline.settings import Settings

_LOG = re.compile(r"\.log([.-]\d+(\.\w+)?)?$")

Verdict = Literal["holds", "broken", "not_applicable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict and its figure; where it does not apply, the figure is the reason."""

    verdict: Verdict
    figure: str


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """What our web application answered to a GET."""

    path: str
    status: int
    headers: Mapping[str, tuple[str, ...]]  # by lower-case name
    body: str

    @property
    def is_html(self) -> bool:
        return any("text/html" in value for value in self.headers.get("content-type", ()))


@dataclass(frozen=True, slots=True)
class Probes:
    """What is to be seen outside the database, each looked at when it is asked for.

    `journal` says how old journald lets entries grow, None without an end (see `policy.journal`); it is None itself where
    journald does not run.
    """

    pages: Callable[[], list[FetchedPage]]
    mails: Callable[[], dict[str, RenderedMail]]
    connections: Callable[[], dict[str, list[Connection]]]
    journal: Callable[[], timedelta | None] | None


class LiveSystem:
    """The running system, as the checks see it. What is costly is looked at when a check first asks for it."""

    def __init__(
        self,
        session: Session,
        keyring: Keyring,
        settings: Settings,
        now: datetime,
        vendor: PolicyOwner,
        sights: Probes,
    ) -> None:
        self.session, self.keyring, self.settings, self.now, self.vendor = session, keyring, settings, now, vendor
        self._sights, self.journal = sights, sights.journal

    @cached_property
    def pages(self) -> list[FetchedPage]:
        """Every page of ours that can be asked for without knowing a secret; none where web is not set up."""
        return self._sights.pages()

    @cached_property
    def mails(self) -> dict[str, RenderedMail]:
        """Every kind of mail, written with its example."""
        return self._sights.mails()

    @cached_property
    def connections(self) -> dict[str, list[Connection]]:
        """By role, whom each of our running processes on this machine is connected to."""
        return self._sights.connections()

    def seals(self, labels: list[str]) -> Mapping[str, DataKey | None]:
        """The keys of these labels, none made; None or absent where it was destroyed."""
        return self.keyring.load(labels, create=False)

    def count(self, table: type[Base], *where: ColumnExpressionArgument[bool]) -> int:
        """How many rows of a table there are, or of those that meet these conditions."""
        return self.session.execute(select(func.count()).select_from(table).where(*where)).scalar_one()

    def people(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The id of each customer, and what they told us: field -> [time, value]. Raises DecryptionError."""
        rows = self.session.execute(
            select(Customer.id, Customer.personal_data).where(Customer.personal_data.is_not(None))
        )
        opened = self.opened("customer.personal_data", [(row.id, row.person) for row in rows])
        return ((id, orjson.loads(plain)) for id, plain in opened)

    def opened(self, column: str, rows: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """The label and what opens of each row; what belongs to somebody erased is left out. Raises Unsealable."""
        seals = self.seals([label for label, _ in rows])
        for label, sealed in rows:
            if seal := seals.get(label):
                yield label, seal.decrypt(column, sealed)


def holds(figure: str) -> Finding:
    """It is so."""
    return Finding("holds", figure)


def broken(figure: str) -> Finding:
    """It is not so; the figure says what is wrong, and what to do where something can be done."""
    return Finding("broken", figure)


def not_applicable(reason: str) -> Finding:
    """It does not apply: what it is about is not running or not set up."""
    return Finding("not_applicable", reason)


def broken_if(wrong: Any, figure: str, complaint: str) -> Finding:
    """Broken with the complaint if anything is wrong (a number, a list, a text), else it holds with the figure."""
    return broken(complaint) if wrong else holds(figure)


def count_noun(count: int, noun: str, plural: str = "") -> str:
    """`1 account`, `2 accounts`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def logs_in(folder: Path) -> list[Path]:
    """Log files in a folder and below: `x.log`, and `x.log.1` or `x.log-20260301.gz` as they are rotated to."""
    return sorted(path for path in folder.rglob("*.log*") if _LOG.search(path.name) and path.is_file())

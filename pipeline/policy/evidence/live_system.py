"""The running system as the checks see it, and the findings they return.

A check inspects what exists. It never trusts that an action was performed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from ipaddress import ip_address
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
from pipeline.settings import DEMO_FILE, Settings

_LOG = re.compile(r"\.log([.-]\d+(\.\w+)?)?$")

Verdict = Literal["holds", "broken", "not_applicable", "not_looked_at"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, and a figure that supports it. For `not_applicable` and `not_looked_at`, the figure is the reason."""

    verdict: Verdict
    figure: str


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """The web application's response to a GET request."""

    path: str
    status: int
    headers: Mapping[str, tuple[str, ...]]  # by lower-case name
    body: str

    @property
    def is_html(self) -> bool:
        return any("text/html" in value for value in self.headers.get("content-type", ()))


@dataclass(frozen=True, slots=True)
class Probes:
    """Functions that inspect what is outside the database. Each is called when a check first needs it.

    `journal` returns the maximum age of journald's entries, None if unlimited (see `evidence.journald`). The field is
    None where journald does not run. `product`: what the product says of its own data, None if it does not answer.
    """

    pages: Callable[[], list[FetchedPage]]
    mails: Callable[[], dict[str, RenderedMail]]
    connections: Callable[[], dict[str, list[Connection]]]
    journal: Callable[[], timedelta | None] | None
    categories: Mapping[str, Mapping[str, str]]
    product: Callable[[], Mapping[str, Any] | None]


class LiveSystem:
    """The running system as the checks see it. Expensive probes run when a check first needs them."""

    def __init__(
        self,
        session: Session,
        keyring: Keyring,
        settings: Settings,
        now: datetime,
        vendor: PolicyOwner,
        probes: Probes,
    ) -> None:
        self.session, self.keyring, self.settings, self.now, self.vendor = session, keyring, settings, now, vendor
        self._probes, self.journal = probes, probes.journal

    @cached_property
    def pages(self) -> list[FetchedPage]:
        """Every page that can be requested without a secret; empty if the web role is not configured."""
        return self._probes.pages()

    @cached_property
    def mails(self) -> dict[str, RenderedMail]:
        """Every kind of mail, rendered with its example."""
        return self._probes.mails()

    @cached_property
    def connections(self) -> dict[str, list[Connection]]:
        """The connections of each running process on this machine, by role."""
        return self._probes.connections()

    @property
    def is_demo(self) -> bool:
        """Whether the data folder contains a demo, and so no real customers."""
        return (self.settings.data_dir / DEMO_FILE).exists()

    @property
    def categories(self) -> Mapping[str, Mapping[str, str]]:
        """The data category of each column, by table and column."""
        return self._probes.categories

    @cached_property
    def product(self) -> Mapping[str, Any] | None:
        """What the product says of the data of managed cloud customers; None if it does not answer."""
        return self._probes.product()

    def is_own_host(self, host: str) -> bool:
        """Return whether a host is below the vendor's domain, on this machine, or at a private address."""
        site = (self.vendor.site or "").removeprefix("www.")
        domain = ".".join(site.split(".")[-2:])
        bare = host.strip("[]").lower()
        if bare == "localhost" or (domain and (bare == domain or bare.endswith(f".{domain}"))):
            return True
        try:
            address = ip_address(bare)
        except ValueError:
            return False
        return address.is_private or address.is_loopback

    def data_keys(self, key_ids: list[str]) -> Mapping[str, DataKey | None]:
        """Return the data keys of these key ids; None or absent if destroyed. Creates no key."""
        return self.keyring.load(key_ids, create=False)

    def count(self, table: type[Base], *where: ColumnExpressionArgument[bool]) -> int:
        """Return the number of rows of a table that match these conditions."""
        return self.session.execute(select(func.count()).select_from(table).where(*where)).scalar_one()

    def customer_data(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the id and the self-reported data of each customer: field -> [time, value]. Raises DecryptionError."""
        rows = self.session.execute(
            select(Customer.id, Customer.personal_data).where(Customer.personal_data.is_not(None))
        )
        decrypted = self.decrypt("customer.personal_data", [(row.id, row.personal_data) for row in rows])
        return ((id, orjson.loads(plain)) for id, plain in decrypted)

    def decrypt(self, column: str, rows: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """Yield the key id and the decrypted value of each row; skip rows with a destroyed key. Raises DecryptionError."""
        keys = self.data_keys([key_id for key_id, _ in rows])
        for key_id, encrypted in rows:
            if key := keys.get(key_id):
                yield key_id, key.decrypt(column, encrypted)


def holds(figure: str) -> Finding:
    """Return the finding that the clause is true."""
    return Finding("holds", figure)


def broken(figure: str) -> Finding:
    """Return the finding that the clause is not true. The figure says what is wrong and, if possible, what to do."""
    return Finding("broken", figure)


def not_applicable(reason: str) -> Finding:
    """Return the finding that the clause does not apply: its subject is not running or not configured."""
    return Finding("not_applicable", reason)


def not_looked_at(reason: str) -> Finding:
    """Return the finding that the clause may be true or not: the check cannot see what it speaks of."""
    return Finding("not_looked_at", reason)


def first_broken(*findings: Finding) -> Finding:
    """Return the first finding that is broken, otherwise one with all figures. It holds if one of them holds."""
    for wrong in findings:
        if wrong.verdict == "broken":
            return wrong
    best = next((each for each in findings if each.verdict == "holds"), findings[0])
    return Finding(best.verdict, "; ".join(each.figure for each in findings))


def broken_if(wrong: Any, figure: str, complaint: str) -> Finding:
    """Return broken with the complaint if `wrong` (a number, list or text) is not empty, otherwise holds with the figure."""
    return broken(complaint) if wrong else holds(figure)


def count_noun(count: int, noun: str, plural: str = "") -> str:
    """Return `1 account` or `2 accounts`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def logs_in(folder: Path) -> list[Path]:
    """Return the log files below a folder: `x.log`, and rotated ones such as `x.log.1` or `x.log-20260301.gz`."""
    return sorted(path for path in folder.rglob("*.log*") if _LOG.search(path.name) and path.is_file())

"""Checks of sections 1 and 7: encryption at rest and in transit, file permissions, dependency audits, and the audit log."""

import gzip
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute

from pipeline.crypto.keyring import DecryptionError
from pipeline.crypto.master_key import MasterKeyError
from pipeline.crypto.signing import Signer
from pipeline.db import lww_map
from pipeline.db.engine import file_of
from pipeline.db.models import (
    AccessLogEntry,
    Base,
    Customer,
    Event,
    InboundMail,
    Link,
    Mail,
    PrivacyRequest,
    ReadAudit,
    Subscription,
)
from pipeline.network import egress
from pipeline.network.hosts import is_on_this_machine
from pipeline.operations import file_permissions
from pipeline.operations.backup.signatures import ENDING, audit_anchors
from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken,
    broken_if,
    count_noun,
    first_broken,
    holds,
    not_looked_at,
)
from pipeline.policy.evidence.plain_columns import columns_with, pattern_of
from pipeline.policy.history import past_checks
from pipeline.policy.stated_limits import AUDIT_DAYS
from pipeline.privacy import audit_log

SAMPLE_ROWS = 200  # the newest rows of each encrypted column that are checked
SAMPLE_PEOPLE = 50  # customers, and subscriptions, whose names and addresses are searched for
MAX_SEARCH_BYTES = 256 * 1024 * 1024  # searched per file
AUDIT_FILE = "audit.json"
Column = InstrumentedAttribute[Any]

# Every encrypted column, the column with its key id, and the time that determines its newest rows.
ENCRYPTED: tuple[tuple[Column, Column, Column], ...] = (
    (Event.personal_data, Event.key_id, Event.received_at), (Event.body, Event.key_id, Event.received_at),
    (Customer.personal_data, Customer.id, Customer.created_at),
    (Subscription.personal_data, Subscription.id, Subscription.created_at),
    (Mail.facts, Mail.key_id, Mail.created_at), (Mail.recipient, Mail.key_id, Mail.created_at),
    (Mail.frozen, Mail.key_id, Mail.created_at), (PrivacyRequest.details, PrivacyRequest.key_id, PrivacyRequest.received_at),
    (Link.details, Link.customer_id, Link.created_at), (InboundMail.content, InboundMail.key_id, InboundMail.received_at),
    (AccessLogEntry.visitor, AccessLogEntry.key_id, AccessLogEntry.at),
)  # fmt: skip


def _at_rest(live: LiveSystem) -> Finding:
    """Every encrypted value can be decrypted with its key, and nothing readable contains a customer's address or name.

    Readable: the other columns of all tables, the files of the data folder, of a SQLite database and of the backups.
    """
    total = 0
    for column, key_id, at in ENCRYPTED:
        name = f"{column.class_.__tablename__}.{column.key}"
        newest = select(key_id, column).where(column.is_not(None)).order_by(at.desc()).limit(SAMPLE_ROWS)
        rows = [(row[0], row[1]) for row in live.session.execute(newest)]
        try:
            total += len(list(live.decrypt(name, rows)))
        except (DecryptionError, MasterKeyError):
            return broken(f"{name} contains a value that is not encrypted with its key")
    people = _sample_people(live)
    pattern = pattern_of(people)
    found = [] if pattern is None else _readable_places(live, pattern)
    figure = (
        f"{count_noun(total, 'value')} encrypted; {count_noun(len(people), 'name and address', 'names and addresses')} "
    )
    return broken_if(
        found,
        f"{figure}searched, none in plain text",
        f"a customer's name or address is in plain text in {', '.join(found[:5])}",
    )


def _in_transit(live: LiveSystem) -> Finding:
    """Every configured connection to another machine is encrypted."""
    routes = egress.outbound_routes(live.settings)
    private = live.settings.private_networks
    wrong = [
        f"{hop.name} ({hop.host})" for hop in routes if not hop.encrypted and not egress.stays_private(hop, private)
    ]
    encrypted = [hop for hop in routes if hop.encrypted]
    advice = "; use TLS, or name the network in SMT_PRIVATE_NETWORKS if it exists only on this machine"
    return broken_if(
        wrong,
        f"{count_noun(len(encrypted), 'outgoing connection')}, all encrypted",
        f"not encrypted: {', '.join(wrong)}{advice}",
    )


def _reads_have_purposes(live: LiveSystem) -> Finding:
    """Every entry of the audit log has a purpose, and the chain of hashes is intact."""
    wrong = audit_log.verify_chain(live.session, live.keyring)
    if wrong:
        return broken(f"the audit log does not verify: {wrong}")
    without = live.count(ReadAudit, func.trim(ReadAudit.purpose) == "", ReadAudit.action != audit_log.SEGMENT)
    return broken_if(
        without,
        f"{count_noun(audit_log.count(live.session), 'read')}, each with a purpose",
        f"{without} without a purpose",
    )


def access_logging(live: LiveSystem) -> Finding:
    """The audit log is complete up to the newest head that is known from elsewhere, and each read has a purpose."""
    return first_broken(_chain(live), _reads_have_purposes(live))


def _chain(live: LiveSystem) -> Finding:
    """The chain of hashes is intact up to its head, and contains each head that a backup or an earlier check confirms."""
    anchors = _audit_anchors(live)
    wrong = audit_log.verify_chain(live.session, live.keyring, anchors)
    head = audit_log.chain_head(live.session)
    confirmed = (
        f"confirmed by {count_noun(len(anchors), 'earlier head')}" if anchors else "confirmed by nothing from elsewhere"
    )
    figure = f"{count_noun(audit_log.count(live.session), 'read')}, head {head[:16]}, {confirmed}"
    return broken_if(wrong, figure, f"the audit log does not verify: {wrong}")


def https(live: LiveSystem) -> Finding:
    """Pages, PayPal and other machines are reached encrypted, and the data at rest is encrypted."""
    return first_broken(_pages_encrypted(live), _in_transit(live), _at_rest(live))


def _pages_encrypted(live: LiveSystem) -> Finding:
    """PayPal is called over HTTPS, and public pages are available over HTTPS only."""
    public = live.settings.public_url
    url = live.settings.paypal_base_url
    is_encrypted = url.startswith("https://") or egress.stays_private(
        egress.OutboundRoute("", _host(url), 0, encrypted=False), ()
    )
    if not is_encrypted:
        return broken(f"PayPal's API is called without TLS: {url}")
    if not public:
        return holds("PayPal over TLS; no pages are public")
    if not public.startswith("https://"):
        here = is_on_this_machine(_host(public))
        return broken_if(
            not here, f"PayPal over TLS; {public} is this machine", f"SMT_PUBLIC_URL is {public}; use https://"
        )
    without_hsts = [
        page.path for page in live.pages if page.is_html and "strict-transport-security" not in page.headers
    ]
    return broken_if(
        without_hsts, f"PayPal and {public} over TLS", f"no Strict-Transport-Security: {', '.join(without_hsts)}"
    )


def updates(live: LiveSystem) -> Finding:
    """The last dependency audit is recent and found no vulnerability."""
    file = live.settings.data_dir / AUDIT_FILE
    try:
        audit = orjson.loads(file.read_bytes())
        at = datetime.fromisoformat(str(audit["at"]))
    except FileNotFoundError:
        return _never_audited(live)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return broken(f"{file} cannot be read; run make audit")
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not audit.get("ok"):
        return broken(f"the audit of {at:%Y-%m-%d}: {audit.get('reason') or 'vulnerabilities were found'}")
    late = at < live.now - timedelta(days=AUDIT_DAYS)
    return broken_if(late, f"audited {at:%Y-%m-%d}, nothing found", f"last audited {at:%Y-%m-%d}; run make audit")


def _never_audited(live: LiveSystem) -> Finding:
    advice = f"never audited: {live.settings.data_dir / AUDIT_FILE} is missing; run make audit with this SMT_DATA_DIR every day"
    first = live.session.execute(select(func.min(Customer.created_at))).scalar_one_or_none()
    is_young = first is None or first > live.now - timedelta(days=AUDIT_DAYS)
    return not_looked_at(advice) if is_young or live.is_demo else broken(advice)


def private_files(live: LiveSystem) -> Finding:
    """Data folder, master key, database and backups are accessible only to the account that runs this program."""
    paths = [path for path in file_permissions.private_files(live.settings) if path.exists()]
    if backups := live.settings.backup_dir:
        paths += [path for path in (backups, *sorted(backups.rglob("*"))) if path.exists()]
    wrong = [path for path in paths if file_permissions.is_readable_by_others(path)]
    advice = f"; run: chmod -R go-rwx {live.settings.data_dir}"
    examples = ", ".join(str(path) for path in wrong[:3])
    return broken_if(
        wrong, f"{count_noun(len(paths), 'file')}, all private", f"accessible to other accounts: {examples}{advice}"
    )


def _audit_anchors(live: LiveSystem) -> list[audit_log.Anchor]:
    """Return the heads of the log that are known from elsewhere: the signatures of backups, and earlier checks."""
    past = [each for each in past_checks(live.settings.data_dir) if each.audit_head != audit_log.ROOT]
    newest = [audit_log.Anchor(past[-1].at, past[-1].audit_head, "the last check")] if past else []
    folder = live.settings.backup_dir
    if folder is None or not any(folder.glob(f"*{ENDING}")):
        return newest
    return [*audit_anchors(folder, Signer(live.keyring).public), *newest]


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0].strip("[]") or "localhost"


def _sample_people(live: LiveSystem) -> set[str]:
    """Return the e-mail addresses, full names and telephone numbers of the newest customers and subscriptions."""
    found: set[str] = set()
    for column, key in ((Subscription.personal_data, Subscription.id), (Customer.personal_data, Customer.id)):
        at = column.class_.created_at
        newest = select(key, column).where(column.is_not(None)).order_by(at.desc()).limit(SAMPLE_PEOPLE)
        rows = [(row[0], row[1]) for row in live.session.execute(newest) if row[1]]
        table = column.class_.__tablename__
        for _, plain in live.decrypt(f"{table}.personal_data", rows):
            found |= _identifying(orjson.loads(plain))
    return found


def _identifying(known: dict[str, Any]) -> set[str]:
    data = {name: str(lww_map.value(known, name) or "") for name in known}
    name = " ".join(filter(None, (data.get("given_name"), data.get("surname")))) or data.get("name", "")
    # A single word may be a word of the program's, or a company's name.
    return {data.get("email", ""), data.get("phone", ""), name if " " in name else ""} - {""}


def _readable_places(live: LiveSystem, pattern: re.Pattern[str]) -> list[str]:
    columns = columns_with(live.session.connection(), Base.metadata, pattern)
    in_bytes = re.compile(pattern.pattern.encode(), re.IGNORECASE)
    return columns + [str(path) for path in _raw_files(live) if _contains_any(path, in_bytes)]


def _raw_files(live: LiveSystem) -> Iterator[Path]:
    """Yield the files of a SQLite database, of the data folder, and what is not encrypted in the folder of backups."""
    if file := file_of(live.settings.database):
        yield from (path for ending in ("", "-wal") if (path := file.with_name(file.name + ending)).exists())
    for folder in filter(None, (live.settings.data_dir, live.settings.backup_dir)):
        yield from (
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and _is_searched(path, folder, is_demo=live.is_demo)
        )


def _is_searched(path: Path, folder: Path, *, is_demo: bool) -> bool:
    """Return whether to search a file. A demo's mailbox of its simulated customers is none of the program's data."""
    is_mailbox = is_demo and "caught" in path.relative_to(folder).parts
    return path.suffix not in (".age", ".db", ".db-wal", ".db-shm") and not path.is_symlink() and not is_mailbox


def _contains_any(path: Path, pattern: re.Pattern[bytes]) -> bool:
    """Return whether the file, also a compressed log, contains a text of the pattern. Finds it across chunk borders too."""
    tail, read = b"", 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while read < MAX_SEARCH_BYTES and (chunk := file.read(1024 * 1024)):
                if pattern.search(tail + chunk):
                    return True
                tail, read = chunk[-300:], read + len(chunk)
    except (OSError, EOFError):  # deleted a moment ago, a socket, or no compressed file
        return False
    return False

"""Sections 1 and 7: sealed at rest, encrypted on the way, private files, fresh dependencies, and every read on record."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from pipeline.crypto.keyring import DecryptionError
from pipeline.crypto.master_key import MasterKeyError
from pipeline.db import lww_map
from pipeline.db.engine import file_of
from pipeline.db.models import (
    AccessLogEntry,
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
from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken,
    broken_if,
    count_noun,
    holds,
    logs_in,
    not_applicable,
)
from pipeline.policy.stated_limits import AUDIT_DAYS
from pipeline.privacy import audit_log

LOOKED_AT = 200  # rows of each sealed column, the newest
NEEDLES = 50  # addresses that are searched for in the raw files
LARGEST = 256 * 1024 * 1024  # octets of a file that are searched
AUDIT_FILE = "audit.json"
Column = InstrumentedAttribute[Any]

# Every sealed column: whose key it is sealed with, and what its newest rows are told by.
SEALED: tuple[tuple[Column, Column, Column], ...] = (
    (Event.personal_data, Event.key_id, Event.received_at), (Event.body, Event.key_id, Event.received_at),
    (Customer.personal_data, Customer.id, Customer.created_at),
    (Subscription.personal_data, Subscription.id, Subscription.created_at),
    (Mail.facts, Mail.key_id, Mail.created_at), (Mail.recipient, Mail.key_id, Mail.created_at),
    (Mail.frozen, Mail.key_id, Mail.created_at), (PrivacyRequest.details, PrivacyRequest.key_id, PrivacyRequest.received_at),
    (Link.details, Link.customer_id, Link.created_at), (InboundMail.content, InboundMail.key_id, InboundMail.received_at),
    (AccessLogEntry.visitor, AccessLogEntry.key_id, AccessLogEntry.at),
)  # fmt: skip


def at_rest(live: LiveSystem) -> Finding:
    """What is sealed opens with its key; and no address of a customer stands in a file of ours."""
    total = 0
    for column, label, at in SEALED:
        name = f"{column.class_.__tablename__}.{column.key}"
        newest = select(label, column).where(column.is_not(None)).order_by(at.desc()).limit(LOOKED_AT)
        rows = [(row[0], row[1]) for row in live.session.execute(newest)]
        try:
            total += len(list(live.opened(name, rows)))
        except (DecryptionError, MasterKeyError):
            return broken(f"{name} holds something that is not sealed with its key")
    needles = _addresses(live)
    found = [str(path) for path in _raw_files(live) if needles and _holds(path, needles)]
    figure = f"{count_noun(total, 'value')} sealed; {count_noun(len(needles), 'address', 'addresses')} in no file"
    return broken_if(found, figure, f"an address of a customer stands readable in {', '.join(found)}")


def in_transit(live: LiveSystem) -> Finding:
    """Every way that leaves this machine is encrypted."""
    ways = egress.outbound_routes(live.settings)
    private = live.settings.private_networks
    wrong = [f"{hop.name} ({hop.host})" for hop in ways if not hop.encrypted and not egress.stays_private(hop, private)]
    out = [hop for hop in ways if hop.encrypted]
    advice = "; use TLS, or name its network in SMT_PRIVATE_NETWORKS if it never leaves this machine"
    return broken_if(
        wrong, f"{count_noun(len(out), 'way')} out, all encrypted", f"in the clear: {', '.join(wrong)}{advice}"
    )


def reads_have_purposes(live: LiveSystem) -> Finding:
    """Every read by us has its purpose, and nobody has touched the record."""
    wrong = audit_log.verify_chain(live.session)
    if wrong:
        return broken(f"the record of reads does not hold: {wrong}")
    without = live.count(ReadAudit, ReadAudit.purpose == "", ReadAudit.action != audit_log.SEGMENT)
    return broken_if(
        without, f"{count_noun(audit_log.count(live.session), 'read')}, each with a purpose", f"{without} without one"
    )


def access_logging(live: LiveSystem) -> Finding:
    """The record of reads is whole up to its head."""
    wrong = audit_log.verify_chain(live.session)
    head = audit_log.chain_head(live.session)
    figure = f"{count_noun(audit_log.count(live.session), 'read')}, head {head[:16]}"
    return broken_if(wrong, figure, f"the record of reads does not hold: {wrong}")


def https(live: LiveSystem) -> Finding:
    """PayPal is called over HTTPS, and our own pages are public over nothing else."""
    public = live.settings.public_url
    url = live.settings.paypal_base_url
    safe = url.startswith("https://") or egress.stays_private(
        egress.OutboundRoute("", _host(url), 0, encrypted=False), ()
    )
    if not safe:
        return broken(f"PayPal's API is called without TLS: {url}")
    if not public:
        return holds("PayPal over TLS; no pages are public")
    if not public.startswith("https://"):
        here = is_on_this_machine(_host(public))
        return broken_if(
            not here, f"PayPal over TLS; {public} is this machine", f"SMT_PUBLIC_URL is {public}: not https://"
        )
    bare = [page.path for page in live.pages if page.is_html and "strict-transport-security" not in page.headers]
    return broken_if(bare, f"PayPal and {public} over TLS", f"a browser may come back without TLS: {', '.join(bare)}")


def updates(live: LiveSystem) -> Finding:
    """The last audit of dependencies is young, and found nothing."""
    file = live.settings.data_dir / AUDIT_FILE
    try:
        told = orjson.loads(file.read_bytes())
        at = datetime.fromisoformat(str(told["at"]))
    except FileNotFoundError:
        return not_applicable(
            f"dependencies were not audited here: {file} is missing; run make audit with this SMT_DATA_DIR, every week"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return broken(f"{file} cannot be read; run make audit")
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not told.get("ok"):
        return broken(f"the audit of {at:%Y-%m-%d}: {told.get('reason') or 'weaknesses were found'}")
    late = at < live.now - timedelta(days=AUDIT_DAYS)
    return broken_if(late, f"audited {at:%Y-%m-%d}, nothing found", f"last audited {at:%Y-%m-%d}; run make audit")


def private_files(live: LiveSystem) -> Finding:
    """Everything in the data folder, the key and the database are for us alone."""
    paths = [path for path in file_permissions.private_files(live.settings) if path.exists()]
    wrong = [path for path in paths if file_permissions.is_readable_by_others(path)]
    advice = f"; run: chmod -R go-rwx {live.settings.data_dir}"
    named = ", ".join(str(path) for path in wrong[:3])
    return broken_if(wrong, f"{count_noun(len(paths), 'file')}, all private", f"open to others: {named}{advice}")


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0].strip("[]") or "localhost"


def _addresses(live: LiveSystem) -> list[bytes]:
    """Addresses of the newest customers, to be searched for."""
    rows = live.session.execute(
        select(Subscription.id, Subscription.personal_data)
        .where(Subscription.personal_data.is_not(None))
        .order_by(Subscription.created_at.desc())
        .limit(NEEDLES)
    )
    opened = live.opened("subscription.personal_data", [(row.id, row.personal_data) for row in rows])
    found = {lww_map.value(orjson.loads(plain), "email") for _, plain in opened}
    return sorted(address.encode() for address in found if address and len(address) > 6)


def _raw_files(live: LiveSystem) -> Iterator[Path]:
    """The database's own files where it is one of ours, and what else of ours is not sealed by nature."""
    if file := file_of(live.settings.database):
        yield from (path for ending in ("", "-wal") if (path := file.with_name(file.name + ending)).exists())
    yield from logs_in(live.settings.data_dir)


def _holds(path: Path, needles: list[bytes]) -> bool:
    """Whether one of these stands in the file as it is, also across the pieces it is read by."""
    # Letters before it make another address of it: our own Message-IDs end like one.
    pattern = re.compile(rb"(?<![\w.+-])(?:" + b"|".join(map(re.escape, needles)) + rb")(?![\w-])", re.IGNORECASE)
    tail, read = b"", 0
    with path.open("rb") as file:
        while read < LARGEST and (piece := file.read(1024 * 1024)):
            if pattern.search(tail + piece):
                return True
            tail, read = piece[-300:], read + len(piece)
    return False

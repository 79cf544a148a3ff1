"""Section 1: what we collect is what is said, and nothing else."""

import orjson
from sqlalchemy import inspect, select

from pipeline.crypto.keyring import DecryptionError
from pipeline.customers.accounts import CUSTOM, FIELDS
from pipeline.db.models import AccessLogEntry, Base, Customer, Event, InboundMail
from pipeline.inbox import redaction
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken, broken_if, count_noun, not_applicable
from pipeline.privacy import data_categories

LOOKED_AT = 2000  # rows of each kind, the newest
VISITOR = {"address", "browser"}


def account(live: LiveSystem) -> Finding:
    """Every account holds the fields of sign-up and no other, and no column is without a category."""
    unknown = _columns_without_category(live)
    if unknown:
        return broken(f"columns without a category: {', '.join(unknown)}")
    more = sorted({field for _, person in live.people() for field in person} - {*FIELDS, CUSTOM})
    total = count_noun(live.count(Customer, Customer.personal_data.is_not(None)), "account")
    return broken_if(more, f"{total}, none with another field", f"accounts hold {', '.join(more)} too")


def payment(live: LiveSystem) -> Finding:
    """No stored body holds a card or account number, or a field that is made for one."""
    newest = select(Event.key_id, Event.body).where(Event.body.is_not(None)).order_by(Event.received_at.desc())
    rows = live.session.execute(newest.limit(LOOKED_AT)).all()
    opened = live.opened("event.body", [(row.key_id, row.body) for row in rows])
    wrong = sum(_holds_card(plain) for _, plain in opened)
    found = f"{count_noun(wrong, 'body', 'bodies')} with card or account numbers"
    return broken_if(wrong, f"none in {count_noun(len(rows), 'body', 'bodies')}", found)


def communications(live: LiveSystem) -> Finding:
    """Every letter is sealed with the key of who wrote it, so that it is exported and erased with them."""
    newest = select(InboundMail).order_by(InboundMail.received_at.desc()).limit(LOOKED_AT)
    rows = list(live.session.execute(newest).scalars())
    lost = [row.id for row in rows if row.customer_id and row.customer_id != row.key_id]
    lost += [row.id for row in rows if not row.customer_id and not row.key_id.startswith("letter:")]
    try:
        list(live.opened("inbound_mail.content", [(row.key_id, row.content) for row in rows if row.content]))
    except DecryptionError:
        return broken("a letter does not open with the key it is filed under")
    return broken_if(
        lost, f"{count_noun(len(rows), 'letter')}, each filed", f"{count_noun(len(lost), 'letter')} filed with nobody"
    )


def visits(live: LiveSystem) -> Finding:
    """Of a visitor address and browser are kept, sealed with the key of the day."""
    newest = select(AccessLogEntry).order_by(AccessLogEntry.at.desc()).limit(LOOKED_AT)
    rows = list(live.session.execute(newest).scalars())
    if not rows and not live.settings.public_url:
        return not_applicable("no pages of ours are public: SMT_PUBLIC_URL is not set")
    astray = [row.id for row in rows if not row.key_id.endswith(f"{row.at:%Y-%m-%d}")]
    try:
        opened = list(live.opened("access_log.visitor", [(row.key_id, row.visitor) for row in rows if row.visitor]))
    except DecryptionError:
        return broken("the access log is not sealed with the key of its day")
    more = sorted({field for _, plain in opened for field in orjson.loads(plain) if field not in VISITOR})
    if astray:
        return broken(f"{count_noun(len(astray), 'visit')} under another day's key")
    return broken_if(
        more, f"{count_noun(len(rows), 'visit')}: address and browser", f"the access log holds {', '.join(more)} too"
    )


def _columns_without_category(live: LiveSystem) -> list[str]:
    """Of the tables as they are in the database, less the one of the migrations."""
    found = inspect(live.session.connection())
    known = {
        table.name: data_categories.categories_of(mapper.class_)
        for mapper in Base.registry.mappers
        for table in mapper.tables
    }
    names = [name for name in found.get_table_names() if name in known or name != "alembic_version"]
    columns = [(name, column["name"]) for name in names for column in found.get_columns(name)]
    return [f"{table}.{column}" for table, column in columns if column not in known.get(table, {})]


def _holds_card(body: bytes) -> bool:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace")
        return redaction.redact_text(text) != text
    return bool(redaction.redact_document(document) != document)

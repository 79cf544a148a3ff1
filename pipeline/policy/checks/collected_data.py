"""Checks of section 1: the program stores only the data that the policy names."""

from datetime import timedelta

import orjson
from sqlalchemy import inspect, select

from pipeline.crypto.key_ids import SENDER
from pipeline.crypto.keyring import DecryptionError
from pipeline.db.models import AccessLogEntry, Customer, Event, InboundMail, Link
from pipeline.policy.evidence.card_numbers import names_payment_means
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken, broken_if, count_noun, not_applicable

SAMPLE_ROWS = 2000  # the newest rows of each table that are checked
VISITOR_FIELDS = {"address", "browser"}
# The policy: "Name, email address, company name, and phone number when you sign up".
NAMED_FIELDS = {"name", "email", "company", "phone"}
# Two more addresses of the same person, and the id of the sign-up: an address not confirmed yet, one that is requested.
ACCOUNT_FIELDS = NAMED_FIELDS | {"entered_email", "new_email", "custom"}


def account(live: LiveSystem) -> Finding:
    """Every account contains only the fields of sign-up, and every column has a category."""
    unknown = _columns_without_category(live)
    if unknown:
        return broken(f"columns without a category: {', '.join(unknown)}")
    extra = sorted({field for _, data in live.customer_data() for field in data} - ACCOUNT_FIELDS)
    total = count_noun(live.count(Customer, Customer.personal_data.is_not(None)), "account")
    return broken_if(extra, f"{total}, none with another field", f"accounts also contain {', '.join(extra)}")


def payment(live: LiveSystem) -> Finding:
    """No stored body contains a card or account number, or a field for one."""
    newest = select(Event.key_id, Event.body).where(Event.body.is_not(None)).order_by(Event.received_at.desc())
    rows = live.session.execute(newest.limit(SAMPLE_ROWS)).all()
    decrypted = live.decrypt("event.body", [(row.key_id, row.body) for row in rows])
    wrong = sum(names_payment_means(plain) for _, plain in decrypted)
    found = f"{count_noun(wrong, 'body', 'bodies')} with card or account numbers"
    return broken_if(wrong, f"none in {count_noun(len(rows), 'body', 'bodies')}", found)


def communications(live: LiveSystem) -> Finding:
    """Every message is encrypted with the key of its sender, or of the person whose mail it reports.

    So exports and erasures include it.
    """
    newest = select(InboundMail).order_by(InboundMail.received_at.desc()).limit(SAMPLE_ROWS)
    rows = list(live.session.execute(newest).scalars())
    merged = set(live.session.execute(select(Customer.id).where(Customer.merged_into.is_not(None))).scalars())
    misfiled = [row.id for row in rows if row.customer_id and row.key_id not in (row.customer_id, *merged)]
    # A report about a mail may have the key of a subscription, sale or message that has no customer.
    unowned = (row for row in rows if not row.customer_id and row.kind != "automatic")
    misfiled += [row.id for row in unowned if not row.key_id.startswith(SENDER)]
    try:
        list(live.decrypt("inbound_mail.content", [(row.key_id, row.content) for row in rows if row.content]))
    except DecryptionError:
        return broken("a message cannot be decrypted with the key that it is filed under")
    return broken_if(
        misfiled,
        f"{count_noun(len(rows), 'message')}, each filed",
        f"{count_noun(len(misfiled), 'message')} with another key than the sender's",
    )


def visits(live: LiveSystem) -> Finding:
    """The access log contains only address and browser of visitors, encrypted with the key of the day."""
    newest = select(AccessLogEntry).order_by(AccessLogEntry.at.desc()).limit(SAMPLE_ROWS)
    rows = list(live.session.execute(newest).scalars())
    if not rows and not live.settings.public_url:
        return not_applicable("no pages are public: SMT_PUBLIC_URL is not set")
    if silent := _days_without_visits(live):
        return broken(f"links were followed on {', '.join(silent)}, but the access log has no visit of that day")
    wrong_day = [row.id for row in rows if not row.key_id.endswith(f"{row.at:%Y-%m-%d}")]
    try:
        decrypted = list(live.decrypt("access_log.visitor", [(row.key_id, row.visitor) for row in rows if row.visitor]))
    except DecryptionError:
        return broken("an entry of the access log cannot be decrypted with the key of its day")
    extra = sorted({field for _, plain in decrypted for field in orjson.loads(plain) if field not in VISITOR_FIELDS})
    if wrong_day:
        return broken(f"{count_noun(len(wrong_day), 'visit')} encrypted with another day's key")
    return broken_if(
        extra,
        f"{count_noun(len(rows), 'visit')}: address and browser",
        f"the access log also contains {', '.join(extra)}",
    )


def _days_without_visits(live: LiveSystem) -> list[str]:
    """Return the days of the last month on which a mailed link was used, but no visit was logged."""
    since = live.now - timedelta(days=30)
    used = live.session.execute(select(Link.used_at).where(Link.used_at > since)).scalars()
    logged = {f"{at:%Y-%m-%d}" for at in live.session.execute(select(AccessLogEntry.at)).scalars()}
    return sorted({f"{at:%Y-%m-%d}" for at in used if at} - logged)


def _columns_without_category(live: LiveSystem) -> list[str]:
    """Return the columns in the database that have no category, except those of Alembic's table."""
    found = inspect(live.session.connection())
    names = [name for name in found.get_table_names() if name in live.categories or name != "alembic_version"]
    columns = [(name, column["name"]) for name in names for column in found.get_columns(name)]
    return [f"{table}.{column}" for table, column in columns if column not in live.categories.get(table, {})]

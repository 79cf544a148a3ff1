"""The checks of `smt-billing doctor`. Each looks at one thing and never raises for what is wrong with it."""

import asyncio
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from pipeline.app.container import sender
from pipeline.app.doctor import settings_check as named
from pipeline.broker import BrokerDown
from pipeline.cli.context import Call
from pipeline.crypto.master_key import KeyProblem, open_master_key
from pipeline.db import migrations
from pipeline.db.engine import StoreDown, is_made
from pipeline.db.models import EncryptionKey, Event, Mail
from pipeline.mailer.smtp_relay import Relay, RelayUnreachable
from pipeline.network.smtp_url import SmtpConfigError
from pipeline.paypal.certificates import Anchors, judge_validity, read_leaf
from pipeline.paypal.errors import Refused, Rejected, Unavailable
from pipeline.privacy.retention.legal_holds import HOLDS
from pipeline.queries import listing as looks
from pipeline.rendering import message
from pipeline.rendering.templates import RenderError
from pipeline.settings import SettingsError

DRIFT = timedelta(seconds=5)  # between this machine's clock and the database's: more and news looks old or early
BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # a clock that stands before this program was written is wrong
EXPIRES_SOON = timedelta(days=14)
SMTP_SECONDS = 10.0  # for the relay to greet
DEMO = "demo.json"  # what a demo leaves in its data folder
# CVE-2024-6923: the first release of each line whose `email` refuses line ends in headers.
FIXED = "3.11.10, 3.12.5 or 3.13.0"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found about one thing; `advice` says what to do, "" where nothing is."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""


def examine(call: Call) -> list[Found]:
    """Check everything. What cannot be looked at because something before it failed is left out."""
    try:
        settings = _settings(call)
    except SettingsError as error:
        return [Found("settings", "fail", str(error), "set what is named, in the environment or in .env")]
    checks = (_others, _broker, _relay, _paypal, _certificates, _anchors, _interpreter, _templates)
    return [settings, _data_dir(call), _master_key(call), *_store(call), *(check(call) for check in checks)]


def _settings(call: Call) -> Found:
    settings = call.settings
    sender(settings)
    wanted = {
        "SMT_PAYPAL_WEBHOOK_ID": bool(settings.paypal_webhook_id or settings.paypal_accept_simulator),
        "SMT_SMTP_URL": bool(settings.smtp_url),
        "SMT_OPERATOR_EMAIL": bool(settings.operator_email),
    }
    missing = [name for name, is_set in wanted.items() if not is_set]
    if settings.paypal_accept_simulator:
        return Found(
            "settings",
            "warn",
            "events of PayPal's simulator are accepted",
            "unset SMT_PAYPAL_ACCEPT_SIMULATOR when done",
        )
    if missing:
        return Found("settings", "warn", f"not set: {', '.join(missing)}", "see docs/operate.md for what each is for")
    return Found("settings", "ok", "read")


def _others(call: Call) -> Found:
    """Files, folders and addresses that settings name and that are used now and then only."""
    settings = call.settings
    if wrong := list(named.wrong(settings, call.clock)):
        return Found("other settings", "fail", "; ".join(wrong), "mend what is named")
    if strange := named.unknown(os.environ):
        return Found("other settings", "warn", f"no settings of this program: {', '.join(strange)}", "misspelt?")
    if settings.country and settings.country not in HOLDS:
        advice = f"invoices are kept 2 years, as the policy says; known are {', '.join(HOLDS)}"
        return Found("other settings", "warn", f"SMT_COUNTRY: no period is known for {settings.country}", advice)
    return Found("other settings", "ok", "what they name is there")


def _data_dir(call: Call) -> Found:
    folder = call.settings.data_dir
    try:
        found = folder.stat()
    except OSError as error:
        return Found(
            "data folder", "fail", f"{folder}: {error.strerror}", "run: smt-billing db upgrade, which makes it"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return Found("data folder", "fail", f"{folder} cannot be written", f"give it to user {os.geteuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return Found("data folder", "fail", f"{folder} is open to others ({mode:04o})", f"run: chmod 700 {folder}")
    if (folder / DEMO).exists():
        advice = "for real customers choose another SMT_DATA_DIR"
        return Found("data folder", "warn", f"{folder}, {mode:04o}, holds a demo's pretend customers", advice)
    return Found("data folder", "ok", f"{folder}, {mode:04o}")


def _master_key(call: Call) -> Found:
    path = call.settings.master_key
    if not path.exists() and _is_needed(call):
        advice = "restore it from your copy or the newest backup; a new one opens nothing of this database"
        return Found("master key", "fail", f"{path} is missing, and this database was written with one", advice)
    if not path.exists():
        return Found(
            "master key", "warn", f"{path} does not exist", "it is made at the first start; then keep a copy elsewhere"
        )
    try:
        key = open_master_key(path, create=False)
    except KeyProblem as error:
        return Found("master key", "fail", str(error), "without it nothing personal can be read")
    if not os.access(path.parent, os.W_OK):
        advice = "keep it in a folder of this user's, so that an erasure can replace it; a mounted secret can never be replaced"
        return Found("master key", "warn", f"{path.parent} cannot be written to: no erasure becomes complete", advice)
    return Found("master key", "ok", f"{path}, {stat.S_IMODE(path.stat().st_mode):04o}, id {key.id}")


def _is_needed(call: Call) -> bool:
    """Whether anything was sealed with a master key already."""
    try:
        return is_made(call.settings.database) and call.untouched_database.holds_keys()
    except StoreDown:  # which the look at the database tells
        return False


def _store(call: Call) -> Iterator[Found]:
    """The database, and what can be seen in it."""
    if not is_made(call.settings.database):
        yield Found("database", "fail", f"{call.settings.database}: not made yet", "run: smt-billing db upgrade")
        return
    try:
        database = call.untouched_database
        revision, newest = migrations.current(database), migrations.newest()
        where = database.url.render_as_string(hide_password=True)
        if revision != newest:
            yield Found(
                "database",
                "fail",
                f"{where}: revision {revision or 'none'}, not {newest}",
                "run: smt-billing db upgrade",
            )
            return
        yield Found("database", "ok", f"{where}, revision {revision}")
        with database.reading() as session:
            for check in (_keys_open, _clock, _events, _mails):
                yield check(call, session)
    except StoreDown as error:
        yield Found("database", "fail", str(error), "check SMT_DATABASE_URL and that the server runs")


def _keys_open(call: Call, session: Session) -> Found:
    row = session.execute(
        select(EncryptionKey.key_id, EncryptionKey.wrapped_key).where(EncryptionKey.wrapped_key.is_not(None)).limit(1)
    ).one_or_none()
    if row is None:
        return Found("sealed data", "ok", "nothing is sealed yet")
    try:
        call.master.unwrap(row.key_id, row.wrapped_key)
    except KeyProblem as error:
        return Found(
            "sealed data", "fail", str(error), "SMT_MASTER_KEY_FILE must name the key this database began with"
        )
    return Found("sealed data", "ok", "opens with the master key")


def _clock(call: Call, session: Session) -> Found:
    now = call.clock.now()
    if now < BUILT:
        return Found(
            "clock", "fail", f"it is {now:%Y-%m-%d} here", "set the machine's clock, and keep it right with NTP"
        )
    if session.get_bind().dialect.name == "postgresql":
        drift = now - session.execute(text("SELECT clock_timestamp()")).scalar_one()
        beside = "the database's clock"
    else:
        newest: datetime | None = session.execute(select(func.max(Event.received_at))).scalar_one()
        drift, beside = min(timedelta(0), now - newest) if newest else timedelta(0), "the newest event's"
    seconds = drift.total_seconds()
    if abs(drift) > DRIFT:
        return Found("clock", "warn", f"{seconds:+.0f} s beside {beside}", "keep both machines' clocks right with NTP")
    return Found("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _events(_: Call, session: Session) -> Found:
    parked = looks.states(session, Event).get("parked", 0)
    if parked:
        return Found("events", "warn", f"{parked:,} parked", "see: smt-billing parked list")
    return Found("events", "ok", "none parked")


def _mails(_: Call, session: Session) -> Found:
    found = looks.states(session, Mail)
    if doubt := found.get("doubt", 0):
        return Found(
            "mails", "warn", f"{doubt:,} in doubt", "see: smt-billing mail list --state doubt, then mail settle"
        )
    if failed := found.get("failed", 0):
        return Found("mails", "warn", f"{failed:,} failed", "see: smt-billing mail list --state failed")
    return Found("mails", "ok", f"{found.get('queued', 0):,} queued, none in doubt, none failed")


def _broker(call: Call) -> Found:
    try:
        return Found("broker", "ok", call.parts.broker.check())
    except SettingsError as error:
        return Found("broker", "fail", str(error), "see SMT_BROKER_URL in docs/operate.md")
    except BrokerDown as error:
        return Found(
            "broker", "fail", str(error), "check SMT_BROKER_URL and that the server runs; no event is lost meanwhile"
        )


def _relay(call: Call) -> Found:
    if not call.settings.smtp_url:
        return Found(
            "relay", "warn", "SMT_SMTP_URL is not set", "mail stays owed until it is: smtp://127.0.0.1:25, say"
        )
    try:
        return Found("relay", "ok", asyncio.run(_probe(call)))
    except SmtpConfigError as error:
        return Found("relay", "fail", str(error))
    except RelayUnreachable as error:
        return Found(
            "relay", "fail", str(error), "check SMT_SMTP_URL and that the relay runs; mail stays owed meanwhile"
        )


async def _probe(call: Call) -> str:
    relay = Relay(call.settings.smtp_url, connections=1, timeout_seconds=SMTP_SECONDS)
    try:
        return await relay.probe()
    finally:
        await relay.close()


def _paypal(call: Call) -> Found:
    if not call.settings.reads_paypal:
        advice = "events that lack a fact park; set SMT_PAYPAL_CLIENT_ID and SMT_PAYPAL_CLIENT_SECRET"
        return Found("PayPal", "warn", "no API credentials: nothing is read", advice)
    try:
        call.parts.paypal.check_credentials()
    except SettingsError as error:
        return Found("PayPal", "fail", str(error))
    except (Rejected, Unavailable) as error:
        return Found("PayPal", "fail", str(error), "check the credentials and SMT_PAYPAL_BASE_URL")
    return Found("PayPal", "ok", f"{call.settings.paypal_base_url} takes the credentials")


def _certificates(call: Call) -> Found:
    """Those that were kept. One that is bad is fetched again by itself; to know of it is enough."""
    folder, now = call.settings.data_dir / "certificates", call.clock.now()
    kept = sorted(folder.glob("*.pem")) if folder.is_dir() else []
    ends: list[datetime] = []
    for path in kept:
        try:
            leaf = read_leaf(path.read_bytes())
            judge_validity(leaf, now)
        except (OSError, Refused) as error:
            return Found(
                "certificates", "warn", f"{path}: {error}", "it is ignored and fetched again when PayPal uses it"
            )
        ends.append(leaf.not_after)
    if not ends:
        return Found("certificates", "ok", "none kept yet; fetched with PayPal's first webhook")
    if min(ends) - now < EXPIRES_SOON:
        return Found(
            "certificates", "ok", f"{len(ends)} kept, one until {min(ends):%Y-%m-%d}; PayPal sends a new one in time"
        )
    return Found("certificates", "ok", f"{len(ends)} kept, valid until {min(ends):%Y-%m-%d}")


def _anchors(call: Call) -> Found:
    path = call.settings.paypal_trust_anchors
    if path is None:
        return Found("trust anchors", "ok", "not set: PayPal's host and name vouch for its certificate")
    try:
        anchors = Anchors.load(path)
    except SettingsError as error:
        return Found(
            "trust anchors", "fail", str(error), "no webhook is accepted before SMT_PAYPAL_TRUST_ANCHORS is mended"
        )
    return Found("trust anchors", "ok", f"{path}, {len(anchors.intermediates)} intermediates")


def _interpreter(_: Call) -> Found:
    version = ".".join(map(str, sys.version_info[:3]))
    if message.injection_probe():
        return Found(
            "interpreter",
            "warn",
            f"Python {version} lets an encoded word add a mail header (CVE-2024-6923)",
            f"our mails are written without its email package and proved; upgrade to {FIXED} or later all the same",
        )
    return Found("interpreter", "ok", f"Python {version} passes the header-injection probe")


def _templates(call: Call) -> Found:
    try:
        templates = call.parts.templates
        for kind in templates.kinds:
            templates.render(kind, templates.example(kind))
    except (RenderError, SettingsError) as error:
        return Found("templates", "fail", str(error), "mend the template, then see: smt-billing mail preview KIND")
    if not templates.kinds:
        return Found("templates", "fail", "no mails found in email_templates", "install the package whole")
    return Found("templates", "ok", f"{len(templates.kinds)} mails, each renders its example")

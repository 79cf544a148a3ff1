"""After an erasure and a key rotation, an attacker with every file cannot decrypt any data of the erased person.

The attacker has the database files with their deleted rows, the write-ahead log, the queue, the logs, and later backups
with the identity that decrypts them. The attacker also has every encrypted value and every wrapped key that was ever in
the tables, and the current master key.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg
import pyrage
import pytest
from sqlalchemy import LargeBinary, inspect

from handlers import HANDLERS
from pipeline.app import from_settings, maintenance
from pipeline.app.container import Container
from pipeline.app.run_until_idle import run_until_idle
from pipeline.clock import MovableClock
from pipeline.crypto.keyring import DataKey, DecryptionError
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.customers import accounts, links
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import (
    Base,
    Customer,
    EncryptionKey,
    Erasure,
    InboundMail,
    Mail,
    Payment,
    PrivacyRequest,
    Refund,
)
from pipeline.operations.backup import store
from pipeline.privacy import requests
from pipeline.privacy.erasure import workflow
from tests.end_to_end.test_no_personal_data_on_disk import bodies, contents, found_in, logged, search
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, make_parts
from tests.support.running_roles import Post, catcher, postman
from tests.support.servers import Postgres, Relay, plain
from tests.support.subprocesses import free_port, until

SECOND = "second.canary@canary.example.com"
TABLES: list[type[Base]] = [mapper.class_ for mapper in Base.registry.mappers]
LEDGER = (Payment, Refund)  # An erasure keeps these tables.


class PayPal:
    def cancel_subscription(self, id: str, reason: str) -> None:
        pass


@dataclass
class Attacker:
    """All wrapped keys and encrypted values that were seen so far. `encrypted` holds (key id, column, bytes)."""

    wrapped: set[tuple[str, bytes]] = field(default_factory=set)
    encrypted: set[tuple[str, str, bytes]] = field(default_factory=set)

    def look(self, pipeline: PipelineUnderTest) -> None:
        """Collect everything that is in the tables now. An old copy of the database files would contain it too."""
        self.wrapped |= {(row.key_id, row.wrapped_key) for row in pipeline.rows(EncryptionKey) if row.wrapped_key}
        for table in TABLES:
            columns = [column.name for column in inspect(table).columns if isinstance(column.type, LargeBinary)]
            for row in pipeline.rows(table) if columns else []:
                for key_id in key_ids_of(row):
                    self.encrypted |= {
                        (key_id, f"{table.__tablename__}.{name}", value)
                        for name in columns
                        if (value := getattr(row, name)) and name not in ("wrapped_key", "email_hash")
                    }

    def decryptable_columns(self, master_key: MasterKey) -> set[str]:
        """Return the columns with a value that a data key under this master key decrypts."""
        data_keys: dict[str, set[bytes]] = {}
        for key_id, wrapped in self.wrapped:
            try:
                data_keys.setdefault(key_id, set()).add(master_key.unwrap(key_id, wrapped))
            except MasterKeyError:
                continue
        return {
            column
            for key_id, column, value in self.encrypted
            for secret in set().union(*data_keys.values())
            if can_decrypt(key_id, secret, column, value)
        }


def key_ids_of(row: Base) -> set[str]:
    named = {getattr(row, name, None) for name in ("key_id", "id", "customer_id")}
    return {str(name) for name in named if name}


def can_decrypt(key_id: str, secret: bytes, column: str, value: bytes) -> bool:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        DataKey(key_id, secret, AESGCM(secret)).decrypt(column, value)
    except DecryptionError:
        return False
    return True


@dataclass
class Scene:
    """One installation, its relay, and the places of its files."""

    container: Container
    pipeline: PipelineUnderTest
    post: Post
    identity: Path
    files: Callable[[], dict[str, list[bytes]]]  # Finds the files that contain a canary.
    leftovers: Callable[[], bytes]  # Returns the content of the database files.

    def run(self) -> None:
        run_until_idle(self.container)


def create_customer(scene: Scene) -> str:
    """Create a customer with data in every table, and return their id."""
    pipeline = scene.pipeline
    pipeline.store(*[delivery(body) for body in bodies(pipeline.clock)])
    pipeline.clock.advance(timedelta(minutes=1))
    scene.run()
    [id] = [row.id for row in pipeline.rows(Customer) if row.id.startswith("c")]
    with pipeline.database.transaction() as session:
        ring = pipeline.keyring(session)
        accounts.correct_field(session, ring, id, "name", "Canarina Vogelsang-Neu", pipeline.now)
        accounts.correct_field(session, ring, id, "email", SECOND, pipeline.now)
        inbound = ring.system_key(id).encrypt(
            "inbound_mail.content", b"From: canarina.v@canary.example.com\r\n\r\nHello"
        )
        session.add(
            InboundMail(id="L1", customer_id=id, key_id=id, kind="support", content=inbound, received_at=pipeline.now)
        )
        links.issue(session, ring, id, "confirm_email", pipeline.now, details={"email": SECOND})
        requests.open_request(session, ring, "correct", id, "page", pipeline.now, details={"name": "Canarina"})
    scene.run()
    return id


def erase_and_rotate(scene: Scene, id: str, attacker: Attacker) -> PrivacyRequest:
    pipeline = scene.pipeline
    attacker.look(pipeline)
    with pipeline.database.transaction() as session:
        request = workflow.schedule_erasure(
            session, pipeline.keyring(session), id, pipeline.now, "page", page="https://b.example.com/"
        )
    scene.run()
    pipeline.clock.advance(workflow.WAIT)
    maintenance.erase_due(scene.container)
    attacker.look(pipeline)  # The confirmation mail is queued now.
    for _ in range(2):
        scene.run()
        attacker.look(pipeline)
        maintenance.erase_due(scene.container)
    maintenance.complete_erasures(scene.container)
    return request


def run_attack(scene: Scene) -> Attacker:
    """Create, erase and attack one customer. Return the attacker, who collected data at every step."""
    pipeline, attacker = scene.pipeline, Attacker()
    old = MasterKey(secret_of(scene))
    id = create_customer(scene)
    ledger = [columns(row) for table in LEDGER for row in pipeline.rows(table)]
    request = erase_and_rotate(scene, id, attacker)

    # The erasure is complete, and the customer gets one confirmation.
    [erasure] = pipeline.rows(Erasure)
    assert (erasure.id, erasure.completed_at) == (request.id, pipeline.now)
    until(lambda: bool(confirmations(scene.post)), 30, "the confirmation is delivered")
    confirmed = confirmations(scene.post)
    assert len(confirmed) == 1
    assert b"To: second.canary@canary.example.com" in confirmed[0]
    assert {row.state for row in pipeline.rows(Mail) if row.kind == "account_deleted"} == {"sent"}
    assert [columns(row) for table in LEDGER for row in pipeline.rows(table)] == ledger
    assert ledger

    # No file contains a canary. Neither does a later backup, decrypted with its identity.
    made = from_settings.backup_store(scene.container.settings).create(
        pipeline.database, scene.container.settings.master_key, pipeline.now
    )
    assert scene.files() == {}
    for path in (made.data, made.keys):
        assert found_in(pyrage.decrypt(path.read_bytes(), store._identities(scene.identity))) == []

    # No key under the current master key decrypts a value of the erased person.
    attacker.look(pipeline)
    attacker.encrypted = {each for each in attacker.encrypted if each[0] in erasure.key_ids}
    current = MasterKey(secret_of(scene))
    assert attacker.decryptable_columns(current) == set()
    # The attack itself works: the old master key decrypts everything.
    decrypted = attacker.decryptable_columns(old)
    assert decrypted >= {
        "event.body", "event.personal_data", "mail.facts", "mail.frozen", "mail.recipient", "subscription.personal_data",
        "customer.personal_data", "inbound_mail.content", "link.details", "privacy_request.details",
    }  # fmt: skip
    assert [key_id for key_id, _, _ in attacker.encrypted if key_id == workflow.confirmation_label(request.id)]
    return attacker


def confirmations(post: Post) -> list[bytes]:
    return [mail for mail in post.mails() if b"account is deleted" in mail.partition(b"\nSubject: ")[2].split(b"\n")[0]]


def columns(row: Base) -> dict[str, object]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def secret_of(scene: Scene) -> bytes:
    import base64

    return base64.b64decode(scene.container.settings.master_key.read_bytes())


@contextmanager
def scene(url: str, folder: Path, clock: MovableClock, post: Post, files: Callable[[], dict[str, list[bytes]]],
          leftovers: Callable[[], bytes]) -> Iterator[Scene]:  # fmt: skip
    identity = folder.parent / "identity.txt"
    recipient = store.new_identity(identity)
    database = Database(url)
    migrations.upgrade(database)
    database.close()
    container = make_parts(
        url, folder, clock, HANDLERS, smtp_url=post.url, web_port=free_port(), country="DE",
        backup_dir=folder / "backups", backup_recipient=recipient,
    )  # fmt: skip
    pipeline = PipelineUnderTest(url, folder, clock)
    try:
        yield Scene(container, pipeline, post, identity, files, leftovers)
    finally:
        pipeline.database.close()
        container.database.close()


def test_erased_person_leaves_no_trace_on_sqlite(
    data_dir: Path, clock: MovableClock, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{data_dir / 'smt-billing.db'}"

    def leftovers() -> bytes:
        return b"".join(path.read_bytes() for path in data_dir.glob("smt-billing.db*"))

    with (
        catcher(free_port()) as post,
        logged(capfd, caplog) as output,
        scene(url, data_dir, clock, post, lambda: search(data_dir), leftovers) as stage,
    ):
        attacker = run_attack(stage)
        # SQLite overwrites deleted values, and the write-ahead log is truncated. When SQLite defragments a full page, a
        # copy of a value can stay in the unused part of the page. That copy is encrypted with a destroyed key.
        raw = stage.leftovers()
        left = [column for _, column, value in attacker.encrypted if value in raw]
        assert len(left) * 10 < len(attacker.encrypted), left
    assert [line for line in output["log"].splitlines() if found_in(line.encode())] == []


def test_erased_person_leaves_no_trace_on_postgresql_and_postfix(
    mailbox: Relay,
    data_dir: Path,
    clock: MovableClock,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Postgres() as server, logged(capfd, caplog) as output:

        def leftovers() -> bytes:
            with psycopg.connect(plain(server.url), autocommit=True) as connection:
                connection.execute("CHECKPOINT")
            return b"".join(content for _, content in contents(server.folder))

        def files() -> dict[str, list[bytes]]:
            leftovers()
            return search(data_dir) | search(server.folder)

        with scene(server.url, data_dir, clock, postman(mailbox), files, leftovers) as stage:
            attacker = run_attack(stage)
            # PostgreSQL keeps deleted values until their space is reused. They are encrypted with destroyed keys.
            raw = stage.leftovers()
            assert [value for _, _, value in attacker.encrypted if value in raw]
        until(lambda: mailbox_queue(mailbox) == [], 30, "the relay's queue is empty")
    assert [line for line in output["log"].splitlines() if found_in(line.encode())] == []


def mailbox_queue(mailbox: Relay) -> list[object]:
    queue = getattr(mailbox, "queue", None)
    return list(queue()) if queue else []

"""After an erasure and a rotation an attacker who holds everything there is opens nothing of the person.

Everything: the database's files with their leftovers, the log of changes, queue and logs, backups made since with the
identity that opens them, every sealed value and every wrapped key that ever stood in the tables, and the master key of now.
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
from tests.support.pipeline_under_test import River, delivery, make_parts
from tests.support.running_roles import Post, catcher, postman
from tests.support.servers import Postgres, Relay, plain
from tests.support.subprocesses import free_port, until

SECOND = "second.canary@canary.example.com"
TABLES: list[type[Base]] = [mapper.class_ for mapper in Base.registry.mappers]
BOOKS = (Payment, Refund)


class PayPal:
    def cancel_subscription(self, id: str, reason: str) -> None:
        pass


@dataclass
class Attacker:
    """What was ever seen of keys and sealed values. `sealed` is (label, column, bytes)."""

    wrapped: set[tuple[str, bytes]] = field(default_factory=set)
    sealed: set[tuple[str, str, bytes]] = field(default_factory=set)

    def look(self, river: River) -> None:
        """See all there is in the tables now, as a copy of yesterday's files would tell."""
        self.wrapped |= {(row.key_id, row.wrapped_key) for row in river.rows(EncryptionKey) if row.wrapped_key}
        for table in TABLES:
            columns = [column.name for column in inspect(table).columns if isinstance(column.type, LargeBinary)]
            for row in river.rows(table) if columns else []:
                for label in labels_of(row):
                    self.sealed |= {
                        (label, f"{table.__tablename__}.{name}", value)
                        for name in columns
                        if (value := getattr(row, name)) and name not in ("wrapped_key", "email_hash")
                    }

    def opens(self, master_key: MasterKey) -> set[str]:
        """The columns of which some value opens with some key that this master key unwraps."""
        seals: dict[str, set[bytes]] = {}
        for label, wrapped in self.wrapped:
            try:
                seals.setdefault(label, set()).add(master_key.unwrap(label, wrapped))
            except MasterKeyError:
                continue
        return {
            column
            for label, column, value in self.sealed
            for secret in set().union(*seals.values())
            if does_open(label, secret, column, value)
        }


def labels_of(row: Base) -> set[str]:
    named = {getattr(row, name, None) for name in ("key_id", "id", "customer_id")}
    return {str(name) for name in named if name}


def does_open(label: str, secret: bytes, column: str, value: bytes) -> bool:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        DataKey(label, secret, AESGCM(secret)).decrypt(column, value)
    except DecryptionError:
        return False
    return True


@dataclass
class Scene:
    """One installation, its relay, and everywhere that its files are."""

    parts: Container
    river: River
    post: Post
    identity: Path
    files: Callable[[], dict[str, list[bytes]]]  # where a canary lies
    leftovers: Callable[[], bytes]  # the database's own files

    def run(self) -> None:
        run_until_idle(self.parts)


def settle_in(scene: Scene) -> str:
    """The canary has bought, signed up, written, asked and been written to; their id."""
    river = scene.river
    river.store(*[delivery(body) for body in bodies(river.clock)])
    river.clock.advance(timedelta(minutes=1))
    scene.run()
    [id] = [row.id for row in river.rows(Customer) if row.id.startswith("c")]
    with river.database.transaction() as session:
        ring = river.keyring(session)
        accounts.correct_field(session, ring, id, "name", "Canarina Vogelsang-Neu", river.now)
        accounts.correct_field(session, ring, id, "email", SECOND, river.now)
        letter = ring.system_key(id).encrypt(
            "inbound_mail.content", b"From: canarina.v@canary.example.com\r\n\r\nHello"
        )
        session.add(
            InboundMail(id="L1", customer_id=id, key_id=id, kind="support", content=letter, received_at=river.now)
        )
        links.issue(session, ring, id, "confirm_email", river.now, details={"email": SECOND})
        requests.open_request(session, ring, "correct", id, "page", river.now, details={"name": "Canarina"})
    scene.run()
    return id


def erase_and_rotate(scene: Scene, id: str, attacker: Attacker) -> PrivacyRequest:
    river = scene.river
    attacker.look(river)
    with river.database.transaction() as session:
        asked = workflow.schedule_erasure(
            session, river.keyring(session), id, river.now, "page", page="https://b.example.com/"
        )
    scene.run()
    river.clock.advance(workflow.WAIT)
    maintenance.erase_due(scene.parts)
    attacker.look(river)  # the confirmation is owed
    for _ in range(2):
        scene.run()
        attacker.look(river)
        maintenance.erase_due(scene.parts)
    maintenance.complete_erasures(scene.parts)
    return asked


def play(scene: Scene) -> Attacker:
    """The whole story; who looked on all the while."""
    river, attacker = scene.river, Attacker()
    old = MasterKey(secret_of(scene))
    id = settle_in(scene)
    books = [columns(row) for table in BOOKS for row in river.rows(table)]
    asked = erase_and_rotate(scene, id, attacker)

    # It was done, and told once.
    [erasure] = river.rows(Erasure)
    assert (erasure.id, erasure.completed_at) == (asked.id, river.now)
    until(lambda: bool(confirmations(scene.post)), 30, "the confirmation is delivered")
    confirmed = confirmations(scene.post)
    assert len(confirmed) == 1
    assert b"To: second.canary@canary.example.com" in confirmed[0]
    assert {row.state for row in river.rows(Mail) if row.kind == "account_deleted"} == {"sent"}
    assert [columns(row) for table in BOOKS for row in river.rows(table)] == books
    assert books

    # Nothing is found, also not in what was backed up since, for those who hold the identity.
    made = from_settings.backup_store(scene.parts.settings).create(
        river.database, scene.parts.settings.master_key, river.now
    )
    assert scene.files() == {}
    for path in (made.data, made.keys):
        assert found_in(pyrage.decrypt(path.read_bytes(), store._identities(scene.identity))) == []

    # Nothing opens: of the person's, with any key that the present master key unwraps.
    attacker.look(river)
    attacker.sealed = {each for each in attacker.sealed if each[0] in erasure.key_ids}
    present = MasterKey(secret_of(scene))
    assert attacker.opens(present) == set()
    opened = attacker.opens(old)  # the attack itself works: with the master key that is gone it opens everything
    assert opened >= {
        "event.body", "event.personal_data", "mail.facts", "mail.frozen", "mail.recipient", "subscription.personal_data",
        "customer.personal_data", "inbound_mail.content", "link.details", "privacy_request.details",
    }  # fmt: skip
    assert [label for label, _, _ in attacker.sealed if label == workflow.confirmation_label(asked.id)]
    return attacker


def confirmations(post: Post) -> list[bytes]:
    return [mail for mail in post.mails() if b"account_deleted." in mail]


def columns(row: Base) -> dict[str, object]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def secret_of(scene: Scene) -> bytes:
    import base64

    return base64.b64decode(scene.parts.settings.master_key.read_bytes())


@contextmanager
def scene(url: str, folder: Path, clock: MovableClock, post: Post, files: Callable[[], dict[str, list[bytes]]],
          leftovers: Callable[[], bytes]) -> Iterator[Scene]:  # fmt: skip
    identity = folder.parent / "identity.txt"
    recipient = store.new_identity(identity)
    database = Database(url)
    migrations.upgrade(database)
    database.close()
    parts = make_parts(
        url, folder, clock, HANDLERS, smtp_url=post.url, web_port=free_port(), country="DE",
        backup_dir=folder / "backups", backup_recipient=recipient,
    )  # fmt: skip
    river = River(url, folder, clock)
    try:
        yield Scene(parts, river, post, identity, files, leftovers)
    finally:
        river.database.close()
        parts.database.close()


def test_an_erased_person_is_nowhere_on_sqlite(
    data_dir: Path, clock: MovableClock, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{data_dir / 'smt-billing.db'}"

    def leftovers() -> bytes:
        return b"".join(path.read_bytes() for path in data_dir.glob("smt-billing.db*"))

    with (
        catcher(free_port()) as post,
        logged(capfd, caplog) as said,
        scene(url, data_dir, clock, post, lambda: search(data_dir), leftovers) as stage,
    ):
        attacker = play(stage)
        # SQLite overwrites what it deletes, and the write-ahead file is emptied. What it moved when it put a full page
        # in order may stay in the gap of that page; it is sealed with a key that is gone.
        raw = stage.leftovers()
        left = [column for _, column, value in attacker.sealed if value in raw]
        assert len(left) * 10 < len(attacker.sealed), left
    assert [line for line in said["log"].splitlines() if found_in(line.encode())] == []


def test_an_erased_person_is_nowhere_on_postgresql_with_postfix(
    mailbox: Relay,
    data_dir: Path,
    clock: MovableClock,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Postgres() as server, logged(capfd, caplog) as said:

        def leftovers() -> bytes:
            with psycopg.connect(plain(server.url), autocommit=True) as connection:
                connection.execute("CHECKPOINT")
            return b"".join(content for _, content in contents(server.folder))

        def files() -> dict[str, list[bytes]]:
            leftovers()
            return search(data_dir) | search(server.folder)

        with scene(server.url, data_dir, clock, postman(mailbox), files, leftovers) as stage:
            attacker = Attacker()
            attacker = play(stage)
            # PostgreSQL keeps what was deleted until it is overwritten: sealed, under keys that are gone.
            raw = stage.leftovers()
            assert [value for _, _, value in attacker.sealed if value in raw]
        until(lambda: mailbox_queue(mailbox) == [], 30, "nothing waits in the relay")
    assert [line for line in said["log"].splitlines() if found_in(line.encode())] == []


def mailbox_queue(mailbox: Relay) -> list[object]:
    queue = getattr(mailbox, "queue", None)
    return list(queue()) if queue else []

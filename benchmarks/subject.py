"""Our side: a folder, a database and the environment of our roles, filled by the program's own code."""

import asyncio
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.load import WEBHOOK_ID
from handlers import HANDLERS
from pipeline.app.container import Container
from pipeline.clock import SystemClock
from pipeline.crypto.keyring import Keyring
from pipeline.db import migrations
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import event_from_lookup, parse_webhook
from pipeline.inbox.store import NewEvent
from pipeline.paypal.certificates import CertificateStore
from pipeline.settings import load, variable
from pipeline.simulator import shapes
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.signing import Signer
from tests.support.subprocesses import ManagedProcess, answers, free_port
from tests.support.vendor import STARTABLE

ROOT = Path(__file__).parents[1]


class Home:
    """What one installation of ours has. Databases other than SQLite, and brokers, are given."""

    def __init__(self, folder: Path, *, database: str = "", broker: str = "memory://", smtp: str = "") -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.database, self.port = folder, database, free_port()
        told = {
            **STARTABLE,
            "data_dir": str(folder),
            "database_url": database,
            "broker_url": broker,
            "smtp_url": smtp,
            "paypal_webhook_id": WEBHOOK_ID,
            "web_port": str(self.port),
            "metrics_host": "",
        }
        self._variables = {variable(name): value for name, value in told.items()}
        self.parts = Container(load(_env_file=None, **told), HANDLERS)

    def moved_to(self, folder: Path, database: str, smtp: str = "") -> "Home":
        """The same installation with another database, a copy of this one's, and perhaps a relay."""
        folder.mkdir(mode=0o700)  # ours alone, or no role starts
        shutil.copytree(self.folder / "keys", folder / "keys")
        shutil.copytree(self.folder / "certificates", folder / "certificates")
        return Home(folder, database=database, broker=self._variables["SMT_BROKER_URL"], smtp=smtp)

    @property
    def url(self) -> str:
        """Where PayPal posts to."""
        return f"http://127.0.0.1:{self.port}/webhooks/paypal"

    def prepare(self, signer: Signer) -> None:
        """Tables, keys, PayPal's certificate, and the plan everybody is on."""
        migrations.upgrade(self.parts.database)
        fetch = {signer.cert_url: signer.leaf_pem}.__getitem__
        keeping = CertificateStore(folder=self.folder / "certificates", anchors=None, clock=SystemClock(), fetch=fetch)
        asyncio.run(_get(keeping, signer.cert_url))
        plan = event_from_lookup("plan", shapes.plan(CLOUD), SystemClock().now())
        self.parts.worker().handle(self.store([plan], "read"))

    def store(
        self, bodies: Sequence[bytes], source: Literal["webhook", "read"] = "webhook", group: int = 256
    ) -> list[str]:
        """Into the inbox, as the door does it, so many in a transaction. The events' ids."""
        ids: list[str] = []
        for start in range(0, len(bodies), group):
            deliveries = [
                NewEvent(parse_webhook(body), source, "benchmark", str(uuid.uuid4()))
                for body in bodies[start : start + group]
            ]
            now = SystemClock().now()
            with self.parts.database.transaction() as session:
                stored = inbox.store(session, Keyring(self.parts.master_key, session, now), deliveries, now)
            ids += [item.event_id for item in stored if item.publish]
        return ids

    def publish(self, ids: Sequence[str]) -> None:
        """Onto the queue, as the door does it."""
        with self.parts.broker.publisher() as publisher:
            publisher.publish("events", ids)

    def close(self) -> None:
        """Let go of the database, so that it can be dropped or copied."""
        self.parts.database.close()

    @contextmanager
    def role(self, *names: str) -> Iterator[list[ManagedProcess]]:
        """These roles as processes of their own, each as `smt-billing NAME` runs it; the web listens inside `with`."""
        processes = [self._start(name, number) for number, name in enumerate(names)]
        try:
            for name, process in zip(names, processes, strict=True):
                if name in ("web", "web-only", "run"):
                    process.wait_until(lambda: answers(self.port))
            yield processes
        finally:
            for process in processes:
                process.end()

    def _start(self, name: str, number: int) -> ManagedProcess:
        folder = self.folder / f"{name}-{number}"
        folder.mkdir()
        program = ["benchmarks.web_only"] if name == "web-only" else ["pipeline", name]
        command = [sys.executable, "-m", *program]
        return ManagedProcess(command, folder, None, {**self._variables, "PYTHONPATH": str(ROOT)})


async def _get(certificates: CertificateStore, url: str) -> None:
    await certificates.get(url)

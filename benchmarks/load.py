"""Pretend customers' webhooks, and the same signed, in a file that wrk sends.

`lives`: each customer's subscription is activated, paid for, and renewed twice: four events over two months, all
customers' mixed in the order of time, as PayPal would send them. `newcomers`: activated and paid for in the last hour.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from random import Random

from pipeline.simulator.people import crowd
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time

WEBHOOK_ID = "7WH40293XW1936428"
PATH = "/webhooks/paypal"
EVENTS_EACH = {"lives": 4, "newcomers": 2}
SEED = 20


@dataclass(frozen=True, slots=True)
class Load:
    """The bodies of a load, and the file of signed requests. `signer` verifies them."""

    bodies: list[bytes]
    requests: Path
    signer: Signer

    def write_bodies(self, path: Path) -> Path:
        """The bodies as a JSON list of texts, for the peers."""
        path.write_text(json.dumps([body.decode() for body in self.bodies]), "utf-8")
        return path


def lives(customers: int, now: datetime, seed: int = SEED) -> list[bytes]:
    """Four events each. The older ones are no news any more, so that their mails are owed and withheld."""
    rng = Random(seed)
    told: list[Delivery] = []
    for person in crowd(customers, rng):
        life = SimulatedSubscription(person, CLOUD, now - timedelta(days=62, hours=4 + rng.random() * 120), rng)
        life.start()
        life.renew()
        life.renew()
        told += _wanted(life)
    return [delivery.body for delivery in by_time(told)]


def newcomers(customers: int, now: datetime, seed: int = SEED) -> list[bytes]:
    """Two events each, and two mails that are news."""
    rng = Random(-seed)
    told: list[Delivery] = []
    for person in crowd(customers, rng):
        life = SimulatedSubscription(person, CLOUD, now - timedelta(minutes=10 + rng.random() * 50), rng)
        life.start()
        told += _wanted(life)
    return [delivery.body for delivery in by_time(told)]


def prepare(folder: Path, kind: str, events: int) -> Load:
    """The load of this kind, with at least so many events; kept in the folder for the rest of the day."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)  # noqa: TID251 - a benchmark of now
    signer = Signer(folder / "signer", since=now - timedelta(days=90), until=now + timedelta(days=2))
    source = hashlib.sha256(Path(__file__).read_bytes() + signer.leaf_pem).hexdigest()[:8]
    kept = folder / f"{now:%Y-%m-%d}-{kind}-{events}-{source}"
    requests, bodies = kept / "requests", kept / "bodies.json"
    if not requests.exists():
        for old in folder.glob(f"*-{kind}-{events}-*"):
            shutil.rmtree(old)
        kept.mkdir(parents=True)
        make = lives if kind == "lives" else newcomers
        made = make(-(-events // EVENTS_EACH[kind]), now)
        bodies.write_text(json.dumps([body.decode() for body in made]), "utf-8")
        _sign_all(requests, made, folder / "signer", now)
    return Load([body.encode() for body in json.loads(bodies.read_text("utf-8"))], requests, signer)


def _sign_all(path: Path, bodies: Sequence[bytes], keys: Path, now: datetime) -> None:
    """Signing costs fifteen times what verifying does, so each processor signs a part."""
    chunks = [(bodies[start : start + 2000], keys, now) for start in range(0, len(bodies), 2000)]
    draft = path.with_suffix(".new")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool, draft.open("wb") as file:
        for signed in pool.map(_sign, chunks):
            file.write(signed)
    draft.rename(path)


def _sign(chunk: tuple[Sequence[bytes], Path, datetime]) -> bytes:
    bodies, keys, now = chunk
    signer = Signer(keys, since=now - timedelta(days=90), until=now + timedelta(days=2))
    return b"".join(_record(body, signer.sign(body, WEBHOOK_ID, now)) for body in bodies)


def _record(body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    return b"%08d%b%b" % (len(head) + len(body), head, body)


def _wanted(life: SimulatedSubscription) -> list[Delivery]:
    """Without CREATED, which tells nothing that ACTIVATED does not."""
    return [delivery for delivery in life.deliveries if delivery.type != "BILLING.SUBSCRIPTION.CREATED"]

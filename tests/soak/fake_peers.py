"""Fakes that misbehave on demand: a relay with its log, a broker that loses and repeats ids, and PayPal's API."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import orjson
from aiosmtpd.smtp import Envelope

from pipeline.broker import BrokerUnavailableError
from pipeline.clock import Clock
from pipeline.inbox.parsing import event_from_lookup
from pipeline.paypal.errors import PaypalNotFoundError, PaypalUnavailableError
from pipeline.paypal.requests import LookupKind
from pipeline.simulator.world import PaypalState
from tests.support.misbehaving_relay import MisbehavingRelay, Wire

# What happens to a mail after its text is complete. `swallowed`, `late` and `lost` end the connection without an answer:
# the mail is accepted, is accepted some seconds later, or never. `orphaned`: it is accepted, and the mailer dies before
# it reads the answer.
Fate = Literal["taken", "later", "refused", "swallowed", "late", "lost", "orphaned"]
FATES: tuple[Fate, ...] = get_args(Fate)
# Time that a relay can need to notice a lost connection and to queue the mail. See DOUBT_GRACE in the outbox.
LATE = timedelta(seconds=5)
EARLIER = {
    "CONNECT": ("drop", "421 4.3.2 shutting down"),
    "MAIL": ("drop", "451 4.3.0 not now", "550 5.7.1 not you", "421 4.3.2 shutting down"),
    "RCPT": ("drop", "450 4.2.0 not now", "550 5.1.1 unknown"),
    "DATA": ("drop", "451 4.3.0 not now", "554 5.5.1 no"),
}


class Postfix(MisbehavingRelay):
    """A relay that writes accepted mails into its log, like Postfix."""

    def __init__(self, log: Path, clock: Clock, orphan: Callable[[], None]) -> None:
        super().__init__()
        self.fates: deque[Fate] = deque()
        self.delivered: Counter[str] = Counter()  # By envelope sender.
        self._late: list[tuple[datetime, str]] = []
        self._log, self._clock, self._orphan = log, clock, orphan
        self.log_connection()

    async def handle_DATA(self, wire: Wire, session: object, envelope: Envelope) -> str:  # noqa: N802
        sender, fate = str(envelope.mail_from), self.fates.popleft() if self.fates else "taken"
        if fate in ("taken", "swallowed", "orphaned"):
            self._accept(sender)
        if fate == "late":
            self._late.append((self._clock.now() + LATE, sender))
        if fate == "orphaned":
            self._orphan()
        if fate in ("swallowed", "late", "lost", "orphaned"):
            wire.transport.abort()
        return {"later": "451 4.3.0 not now", "refused": "550 5.7.1 no"}.get(fate, "250 2.0.0 queued as 4Xyz")

    def time_passes(self) -> None:
        """Accept the late mails whose time has come."""
        now = self._clock.now()
        for _, sender in [item for item in self._late if item[0] <= now]:
            self._accept(sender)
        self._late = [item for item in self._late if item[0] > now]

    def log_connection(self) -> None:
        self._write("smtpd[78]: connect from localhost[127.0.0.1]")

    def forget_log(self) -> None:
        self._log.unlink()
        self.log_connection()

    def behave(self) -> None:
        self.fates.clear()
        self.script.clear()

    def _accept(self, sender: str) -> None:
        self.delivered[sender] += 1
        self._write(f"qmgr[77]: 4bTz5k0Nzqz9rxQ: from=<{sender}>, size=1234, nrcpt=1 (queue active)")

    def _write(self, text: str) -> None:
        with self._log.open("a") as lines:
            lines.write(f"{self._clock.now().isoformat(timespec='microseconds')} relay postfix/{text}\n")


@dataclass
class UnreliableBroker:
    """A broker that can lose and repeat ids. It calls `check_ack` before each acknowledgement."""

    check_ack: Callable[[Sequence[str]], None]
    is_down: bool = False
    ids: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    published: list[bytes] = field(default_factory=list)  # Every published message.

    def publish(self, queue: str, ids: Sequence[str]) -> None:
        self.published.append(orjson.dumps(list(ids)))
        if self.is_down:
            raise BrokerUnavailableError("the broker is down")
        if queue == "events":
            self.ids += ids

    def announce(self, ids: list[str]) -> None:
        """Publish like the event publisher: ids that cannot be published are left to the recovery."""
        try:
            self.publish("events", ids)
        except BrokerUnavailableError:
            return

    def announce_mails(self, ids: list[str]) -> None:
        self.published.append(orjson.dumps(ids))

    def receive(self, limit: int, _wait_seconds: float) -> "IdBatch | None":
        if self.is_down:
            raise BrokerUnavailableError("the broker is down")
        taken, self.ids = self.ids[:limit], self.ids[limit:]
        self.held = taken
        return IdBatch(taken, self) if taken else None

    def lose(self, which: int) -> None:
        self.ids = [id for number, id in enumerate(self.ids) if number % 4 != which]

    def repeat(self, which: int) -> None:
        self.ids = [*reversed(self.ids), *self.ids[which:]]

    def requeue_unacknowledged(self, *, forgets: bool) -> None:
        """Requeue after a consumer died. An in-process broker forgets all ids; a server redelivers the unacknowledged ones."""
        self.ids = [] if forgets else [*self.held, *self.ids]
        self.held = []


@dataclass
class IdBatch:
    """Ids that were received together."""

    ids: list[str]
    _broker: UnreliableBroker

    def ack(self) -> None:
        self._broker.check_ack(self.ids)
        self._broker.held = []

    def requeue(self) -> None:
        self._broker.requeue_unacknowledged(forgets=False)


class PayPal:
    """PayPal's API, answering from the simulated state unless it is down. `answers` has the answers as events, by id."""

    def __init__(self, world: PaypalState, clock: Clock) -> None:
        self._world, self._clock = world, clock
        self.is_down = False
        self.answers: dict[str, dict[str, Any]] = {}

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        if self.is_down:
            raise PaypalUnavailableError("PayPal is down")
        shown = self._world.show(kind, id)
        if shown is None:
            raise PaypalNotFoundError(f"PayPal knows no {kind} {id}")
        event: dict[str, Any] = orjson.loads(event_from_lookup(kind, shown, self._clock.now()))
        self.answers[event["id"]] = event
        return shown


def unknown_ids(published: Iterable[bytes], known: set[str]) -> set[str]:
    """Return the published values that are not ids of events or mails."""
    return {id for message in published for id in orjson.loads(message)} - known

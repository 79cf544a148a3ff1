"""Those around us, who misbehave as told: a relay with its log, a broker that loses and repeats, PayPal's API."""

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

# What becomes of a mail whose text is complete. `swallowed`, `late` and `lost` end the connection without an answer:
# the mail was taken, will be in some seconds, or never. `orphaned`: it was taken, and we die before we hear of it.
Fate = Literal["taken", "later", "refused", "swallowed", "late", "lost", "orphaned"]
FATES: tuple[Fate, ...] = get_args(Fate)
# What a relay may need to notice that we are gone and to queue what it has: see SETTLE_AFTER.
LATE = timedelta(seconds=5)
EARLIER = {
    "CONNECT": ("drop", "421 4.3.2 shutting down"),
    "MAIL": ("drop", "451 4.3.0 not now", "550 5.7.1 not you", "421 4.3.2 shutting down"),
    "RCPT": ("drop", "450 4.2.0 not now", "550 5.1.1 nobody"),
    "DATA": ("drop", "451 4.3.0 not now", "554 5.5.1 no"),
}


class Postfix(MisbehavingRelay):
    """A relay that does as Postfix does with what it has taken: it writes it into its log."""

    def __init__(self, log: Path, clock: Clock, orphan: Callable[[], None]) -> None:
        super().__init__()
        self.fates: deque[Fate] = deque()
        self.delivered: Counter[str] = Counter()  # by envelope sender
        self._late: list[tuple[datetime, str]] = []
        self._log, self._clock, self._orphan = log, clock, orphan
        self.spoken_to()

    async def handle_DATA(self, wire: Wire, session: object, envelope: Envelope) -> str:  # noqa: N802
        sender, fate = str(envelope.mail_from), self.fates.popleft() if self.fates else "taken"
        if fate in ("taken", "swallowed", "orphaned"):
            self._take(sender)
        if fate == "late":
            self._late.append((self._clock.now() + LATE, sender))
        if fate == "orphaned":
            self._orphan()
        if fate in ("swallowed", "late", "lost", "orphaned"):
            wire.transport.abort()
        return {"later": "451 4.3.0 not now", "refused": "550 5.7.1 no"}.get(fate, "250 2.0.0 queued as 4Xyz")

    def time_passes(self) -> None:
        """What it had still to take, it has taken by now."""
        now = self._clock.now()
        for _, sender in [item for item in self._late if item[0] <= now]:
            self._take(sender)
        self._late = [item for item in self._late if item[0] > now]

    def spoken_to(self) -> None:
        self._write("smtpd[78]: connect from localhost[127.0.0.1]")

    def forget_log(self) -> None:
        self._log.unlink()
        self.spoken_to()

    def behave(self) -> None:
        self.fates.clear()
        self.script.clear()

    def _take(self, sender: str) -> None:
        self.delivered[sender] += 1
        self._write(f"qmgr[77]: 4bTz5k0Nzqz9rxQ: from=<{sender}>, size=1234, nrcpt=1 (queue active)")

    def _write(self, words: str) -> None:
        with self._log.open("a") as lines:
            lines.write(f"{self._clock.now().isoformat(timespec='microseconds')} relay postfix/{words}\n")


@dataclass
class Rumours:
    """A broker: ids on their way, some of them lost, some told twice. `judge` is asked before an acknowledgement."""

    judge: Callable[[Sequence[str]], None]
    is_away: bool = False
    ids: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    published: list[bytes] = field(default_factory=list)  # all it ever saw

    def publish(self, queue: str, ids: Sequence[str]) -> None:
        self.published.append(orjson.dumps(list(ids)))
        if self.is_away:
            raise BrokerUnavailableError("the broker is away")
        if queue == "events":
            self.ids += ids

    def announce(self, ids: list[str]) -> None:
        """As an announcer: what cannot be published is left to a sweep."""
        try:
            self.publish("events", ids)
        except BrokerUnavailableError:
            return

    def announce_mails(self, ids: list[str]) -> None:
        self.published.append(orjson.dumps(ids))

    def take(self, limit: int, _wait_seconds: float) -> "Handful | None":
        if self.is_away:
            raise BrokerUnavailableError("the broker is away")
        taken, self.ids = self.ids[:limit], self.ids[limit:]
        self.held = taken
        return Handful(taken, self) if taken else None

    def lose(self, which: int) -> None:
        self.ids = [id for number, id in enumerate(self.ids) if number % 4 != which]

    def repeat(self, which: int) -> None:
        self.ids = [*reversed(self.ids), *self.ids[which:]]

    def their_reader_died(self, *, forgets: bool) -> None:
        """One in our process is gone with it; a server gives what was not acknowledged to the next who asks."""
        self.ids = [] if forgets else [*self.held, *self.ids]
        self.held = []


@dataclass
class Handful:
    """Ids taken together."""

    ids: list[str]
    _broker: Rumours

    def ack(self) -> None:
        self._broker.judge(self.ids)
        self._broker.held = []

    def requeue(self) -> None:
        self._broker.their_reader_died(forgets=False)


class PayPal:
    """PayPal's API: what the world shows, unless it is away. `told` keeps the answers as events, by id."""

    def __init__(self, world: PaypalState, clock: Clock) -> None:
        self._world, self._clock = world, clock
        self.is_away = False
        self.told: dict[str, dict[str, Any]] = {}

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        if self.is_away:
            raise PaypalUnavailableError("PayPal is away")
        shown = self._world.show(kind, id)
        if shown is None:
            raise PaypalNotFoundError(f"PayPal knows no {kind} {id}")
        event: dict[str, Any] = orjson.loads(event_from_lookup(kind, shown, self._clock.now()))
        self.told[event["id"]] = event
        return shown


def only_ids(published: Iterable[bytes], known: set[str]) -> set[str]:
    """What was published beside ids of events and mails."""
    return {id for message in published for id in orjson.loads(message)} - known

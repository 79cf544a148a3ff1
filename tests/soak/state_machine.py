"""Hypothesis state machine: random steps and faults, with the invariants checked after each step."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.clock import MovableClock
from pipeline.crypto.master_key import MasterKey, open_master_key
from pipeline.db.models import Mail
from pipeline.inbox import store as inbox
from pipeline.inbox.store import StoreResult
from pipeline.outbox import store as outbox
from pipeline.simulator.random_subscription import random_subscription
from pipeline.simulator.timeline import Delivery
from pipeline.simulator.world import PaypalState
from tests.soak.database_faults import AT_STATEMENTS, KINDS, Crash, Kind
from tests.soak.fake_peers import EARLIER, FATES, Fate, PayPal
from tests.soak.invariants import Invariants, sender
from tests.soak.single_process import Process, SimulatedHost
from tests.soak.unknown_events import UNKNOWN_KINDS, UnknownKind, body_of, wanted_state
from tests.support.event_histories import EARLY, Json, OrderedReplay
from tests.support.pipeline_under_test import create_tables, delivery

MAX_SUBSCRIPTIONS = 3
FULL_CHECK_EVERY = 6  # Steps. Comparing the rows with a replay takes as long as the rest of a step.
WAITS = tuple(timedelta(seconds=seconds) for seconds in (1, 3, 6, 11, 31, 61, 130, 700, 4000))
PAUSES = (timedelta(0), *(delay + timedelta(seconds=1) for delay in outbox.DELAYS[:3]))
LONG_ENOUGH = outbox.DOUBT_GRACE + timedelta(seconds=1)
ROUNDS = 400  # More than any scenario has needed to finish its work.
SMTP_FAULTS: list[tuple[str, str] | None] = [(verb, what) for verb, all_of in EARLIER.items() for what in all_of]


class Role(Enum):
    """A round of a role's loop. The value is the method of `Process`."""

    tick = "tick"
    work = "work"
    read = "read"
    mail = "mail"


Trouble = Enum("Trouble", "paypal_leaves paypal_returns broker_leaves broker_returns broker_loses broker_repeats")
numbers = st.integers(0, 99)


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of all roles, with its faults."""

    fates: list[Fate]
    fault: Kind | None
    before: Role
    after: int
    pause: timedelta
    rotates: int


turns = st.builds(
    Turn,
    fates=st.lists(st.sampled_from(FATES), max_size=3),
    fault=st.none() | st.sampled_from(KINDS),
    before=st.sampled_from(Role),
    after=st.integers(0, 12),
    pause=st.sampled_from((*PAUSES, *WAITS)),
    rotates=st.integers(0, 4),
)


@cache
def ordered_replay() -> OrderedReplay:
    """Return the replay without faults. All scenarios share it: creating one is slow, and each replay starts empty."""
    return OrderedReplay(Path(tempfile.mkdtemp(prefix="smt-replay-")))


@cache
def master_key() -> MasterKey:
    return open_master_key(Path(tempfile.mkdtemp(prefix="smt-key-")) / "keys" / "master.key")


class ScenarioMachine(RuleBasedStateMachine):
    """Subscriptions whose events are posted to a pipeline under faults."""

    rested = 0  # Number of finished scenarios, so that a test can check that the final checks ran.

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="smt-soak-")
        self.clock, self.world = MovableClock(EARLY), PaypalState()
        self.paypal = PayPal(self.world, self.clock)
        self.host = SimulatedHost(Path(self._folder.name), self.clock, master_key(), self.paypal)
        create_tables(self.host.watcher)
        self.process = Process(self.host)
        self.checks = Invariants(self.host, ordered_replay())
        self.to_post: list[Delivery] = []
        self.events: dict[str, Json] = {}  # posted at least once, by id
        self.unknown: dict[str, str] = {}  # id -> required final state
        self.accepted: set[str] = set()
        self.begun = self.posted = self.looks = 0

    # Steps of PayPal

    @initialize(seed=st.integers(0, 2**32))
    def first_subscription(self, seed: int) -> None:
        self.subscription(seed)
        self.post(which=list(range(10)), keep=False, works=True)

    @precondition(lambda self: self.begun < MAX_SUBSCRIPTIONS)
    @rule(seed=st.integers(0, 2**32))
    def subscription(self, seed: int) -> None:
        """Create a subscription. All its events wait to be posted."""
        self.begun += 1
        self.to_post += random_subscription(Random(seed), steps=5)

    @precondition(lambda self: self.to_post)
    @rule(which=st.lists(numbers, min_size=1, max_size=24), keep=st.booleans(), works=st.booleans())
    def post(self, which: list[int], keep: bool, works: bool) -> None:
        """Post some events together, in any order. With `keep` they are posted again later; with `works` handle them."""
        chosen = list({item.id: item for item in (self.to_post[n % len(self.to_post)] for n in which)}.values())
        self._survive(lambda: self._post(chosen, keep=keep))
        if works:
            self.roles([Role.work])

    @precondition(lambda self: self.accepted & self.events.keys())
    @rule(kind=st.sampled_from(UNKNOWN_KINDS), which=numbers)
    def post_unknown(self, kind: UnknownKind, which: int) -> None:
        """Post an unknown event, made from an accepted one."""
        known = sorted(self.accepted & self.events.keys())
        made = delivery(body_of(kind, self.events[known[which % len(known)]]), f"T-{self.posted}-{kind}")
        self.unknown[made.parsed.id] = wanted_state(kind)
        self.posted += 1
        self._survive(lambda: self._receive([made]))

    # Steps of the roles

    @rule(steps=st.lists(st.sampled_from(Role), min_size=1, max_size=4))
    def roles(self, steps: list[Role]) -> None:
        for step in steps:
            self._survive(lambda role=step: getattr(self.process, role.name)())  # type: ignore[misc]

    @rule(
        pause=st.sampled_from(PAUSES),
        fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=4),
        earlier=st.sampled_from([None] * len(SMTP_FAULTS) * 3 + SMTP_FAULTS),
        then=st.sampled_from(("nothing", "tick", "wait", "wait and lose the log")),
    )
    def mail(self, pause: timedelta, fates: list[Fate], earlier: tuple[str, str] | None, then: str) -> None:
        """Send the due mails to a relay with these faults. `pause` makes retries due; `then` is what happens after it."""
        self.wait(pause, rotates=1)
        if earlier:
            self.host.postfix.script.setdefault(earlier[0], []).append(earlier[1])
        self.host.postfix.fates.extend(fates)
        self.roles([Role.mail])
        if then.startswith("wait"):
            self.wait(LONG_ENOUGH, rotates=int(then == "wait"))
        if then != "nothing":
            self.roles([Role.tick])

    @rule(step=st.sampled_from(WAITS), rotates=st.integers(0, 4))
    def wait(self, step: timedelta, rotates: int) -> None:
        """Advance the clock. With `rotates` 0 the relay's log is rotated and lost."""
        self.clock.advance(step)
        if rotates == 0:
            self.host.postfix.forget_log()
        self.host.postfix.time_passes()

    @rule(rounds=st.lists(turns, min_size=2, max_size=6))
    def go_round(self, rounds: list[Turn]) -> None:
        """Run several rounds of all roles, with faults in each round and pauses between them."""
        for turn in rounds:
            self.host.postfix.fates.extend(turn.fates)
            for role in Role:
                if turn.fault and turn.before is role:
                    self.database_fault(turn.fault, turn.after)
                self.roles([role])
            self.wait(turn.pause, rotates=turn.rotates)

    # Faults

    @rule(kind=st.sampled_from(KINDS), after=st.integers(0, 12))
    def database_fault(self, kind: Kind, after: int) -> None:
        self.host.fault.arm(kind, after if kind in AT_STATEMENTS else after % 3)

    @rule(trouble=st.sampled_from(Trouble), which=st.integers(0, 3))
    def peer_fault(self, trouble: Trouble, which: int) -> None:
        broker = self.host.broker
        match trouble:
            case Trouble.paypal_leaves | Trouble.paypal_returns:
                self.paypal.is_down = trouble is Trouble.paypal_leaves
            case Trouble.broker_leaves | Trouble.broker_returns:
                broker.is_down = trouble is Trouble.broker_leaves
            case Trouble.broker_loses:
                broker.lose(which)
            case Trouble.broker_repeats:
                broker.repeat(which)

    @rule(forgets=st.booleans())
    def die(self, forgets: bool) -> None:
        """Kill the process and start a new one. A broker inside the process forgets everything."""
        self.process.die()
        self.host.broker.requeue_unacknowledged(forgets=forgets)
        self.process = Process(self.host)

    # Checks

    @invariant()
    def invariants_hold(self) -> None:
        self.looks += 1
        self.checks.hold(self.accepted)
        if self.looks % FULL_CHECK_EVERY == 0:
            self.checks.check_state_follows_from_events(self.events | self.paypal.answers)

    def rest(self) -> None:
        """End all faults, finish all work, and check the final invariants."""
        self._end_faults()
        while self.to_post:
            self._post(self.to_post[:50], keep=False)
        self._until_idle(self.checks.next_due)
        self.checks.hold(self.accepted)
        self.checks.hold_at_rest(self.events | self.paypal.answers, self.world, self.unknown)
        ScenarioMachine.rested += 1

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.rest()
                self._reminders()
        finally:
            self.process.die()
            self.host.close()
            self._folder.cleanup()

    # Helpers

    def _survive(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except Crash:
            self.die(forgets=self.posted % 2 == 0)

    def _post(self, deliveries: list[Delivery], *, keep: bool) -> None:
        """Post each delivery as a new transmission. Without `keep`, PayPal does not repeat those answered with 200."""
        for item in deliveries:
            self.world.apply(item)
            self.events[item.id] = item.event
            self.posted += 1
        stored = self._receive(
            [delivery(item.body, f"T-{self.posted}-{number}") for number, item in enumerate(deliveries)]
        )
        if not keep:
            self.to_post = [item for item in self.to_post if item.id not in stored]

    def _receive(self, deliveries: list[inbox.NewEvent]) -> set[str]:
        """Store the deliveries and return the ids that were answered with 200."""
        stored = {answer.event_id for answer in self.process.receive(deliveries) if isinstance(answer, StoreResult)}
        self.accepted |= stored
        return stored

    def _end_faults(self) -> None:
        self.host.fault.disarm()
        self.host.postfix.behave()
        self.paypal.is_down = self.host.broker.is_down = False

    def _until_idle(self, put_off: Callable[[], list[Any]]) -> None:
        """Run rounds until no work is left. If nothing is due, move the clock to the next due time."""
        for _ in range(ROUNDS):
            self._resolve_doubts_by_hand()
            self.process.tick()
            while self.host.broker.ids:
                self.process.work()
            self.process.read()
            self.process.mail()
            self.wait(LONG_ENOUGH, rotates=1)
            later = put_off()
            if not later and not self.host.broker.ids and not self._lookups_left():
                return
            if later and min(later) > self.clock.now():
                self.clock.move_to(min(later))
                self.host.postfix.time_passes()
        raise AssertionError(f"work left after {ROUNDS} rounds: {self.checks.remaining_work()}")

    def _lookups_left(self) -> bool:
        """Return whether look-ups are left, and move the clock to the next one."""
        due = self.checks.lookups_due()
        if due and min(due) > self.clock.now():
            self.clock.move_to(min(due))
        return bool(due)

    def _resolve_doubts_by_hand(self) -> None:
        """Resolve old doubts like an operator, who asks the customer when the relay's log is lost."""
        with self.host.watcher.transaction() as session:
            for row in session.query(Mail).where(Mail.state == "doubt"):
                if row.due_at and row.due_at < self.clock.now() - timedelta(minutes=5):
                    sent = bool(self.host.postfix.delivered[sender(row)])
                    outbox.resolve_doubt(session, row.id, self.clock.now(), sent=sent)

    def _reminders(self) -> None:
        """Move to the first renewals and check that each reminder is queued and sent once."""
        due = sorted(self.checks.reminders_due())
        if due and due[0] > self.clock.now():
            self.clock.move_to(due[0])
            self._until_idle(self.checks.next_due)
            self.checks.hold(self.accepted)
            self.checks.hold_at_rest(self.events | self.paypal.answers, self.world, self.unknown)

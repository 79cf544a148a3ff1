"""A river's life under every misfortune, step by step, as hypothesis chooses; its promises looked at after each step."""

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
from tests.soak.unknown_events import KINDS_OF_STRANGE, KindOfStrange, body_of, wanted_state
from tests.support.event_histories import EARLY, Json, OrderedReplay
from tests.support.pipeline_under_test import create_tables, delivery

LIVES = 3
AUDITS = 6  # every so many steps the books are compared with calm: that takes as long as all the rest of a step
WAITS = tuple(timedelta(seconds=seconds) for seconds in (1, 3, 6, 11, 31, 61, 130, 700, 4000))
PAUSES = (timedelta(0), *(delay + timedelta(seconds=1) for delay in outbox.DELAYS[:3]))
LONG_ENOUGH = outbox.DOUBT_GRACE + timedelta(seconds=1)
ROUNDS = 400  # more than any rest has needed
MISDEEDS: list[tuple[str, str] | None] = [(verb, what) for verb, all_of in EARLIER.items() for what in all_of]


class Role(Enum):
    """A round of a role's loop: what `Process` calls it."""

    tick = "tick"
    work = "work"
    read = "read"
    mail = "mail"


Trouble = Enum("Trouble", "paypal_leaves paypal_returns broker_leaves broker_returns broker_loses broker_repeats")
numbers = st.integers(0, 99)


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of all roles, and what happens in it."""

    fates: list[Fate]
    storm: Kind | None
    before: Role
    after: int
    pause: timedelta
    rotates: int


turns = st.builds(
    Turn,
    fates=st.lists(st.sampled_from(FATES), max_size=3),
    storm=st.none() | st.sampled_from(KINDS),
    before=st.sampled_from(Role),
    after=st.integers(0, 12),
    pause=st.sampled_from((*PAUSES, *WAITS)),
    rotates=st.integers(0, 4),
)


@cache
def calm_shore() -> OrderedReplay:
    """Where the same is told in calm. One for all: making one is slow, and it forgets between two tellings."""
    return OrderedReplay(Path(tempfile.mkdtemp(prefix="smt-shore-")))


@cache
def master_key() -> MasterKey:
    return open_master_key(Path(tempfile.mkdtemp(prefix="smt-key-")) / "keys" / "master.key")


class ScenarioMachine(RuleBasedStateMachine):
    """Lives of subscriptions, told to a river that everything happens to."""

    rested = 0  # how many came to rest, so that a test can tell that it looked at all

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="smt-lives-")
        self.clock, self.world = MovableClock(EARLY), PaypalState()
        self.paypal = PayPal(self.world, self.clock)
        self.harbour = SimulatedHost(Path(self._folder.name), self.clock, master_key(), self.paypal)
        create_tables(self.harbour.watcher)
        self.process = Process(self.harbour)
        self.promises = Invariants(self.harbour, calm_shore())
        self.to_tell: list[Delivery] = []
        self.told: dict[str, Json] = {}
        self.strange: dict[str, str] = {}  # id -> the state it has to end in
        self.accepted: set[str] = set()
        self.begun = self.posted = self.looks = 0

    # What PayPal does

    @initialize(seed=st.integers(0, 2**32))
    def first_life(self, seed: int) -> None:
        self.life(seed)
        self.tell(which=list(range(10)), keep=False, works=True)

    @precondition(lambda self: self.begun < LIVES)
    @rule(seed=st.integers(0, 2**32))
    def life(self, seed: int) -> None:
        """A subscription begins, and everything that will happen to it waits to be told."""
        self.begun += 1
        self.to_tell += random_subscription(Random(seed), steps=5)

    @precondition(lambda self: self.to_tell)
    @rule(which=st.lists(numbers, min_size=1, max_size=24), keep=st.booleans(), works=st.booleans())
    def tell(self, which: list[int], keep: bool, works: bool) -> None:
        """Some of it comes at once, in any order; what is kept will come again. Often it is worked on at once."""
        chosen = list({told.id: told for told in (self.to_tell[n % len(self.to_tell)] for n in which)}.values())
        self._survive(lambda: self._post(chosen, keep=keep))
        if works:
            self.roles([Role.work])

    @precondition(lambda self: self.accepted & self.told.keys())
    @rule(kind=st.sampled_from(KINDS_OF_STRANGE), which=numbers)
    def tell_strange(self, kind: KindOfStrange, which: int) -> None:
        """What nobody here understands, made of something that was accepted."""
        known = sorted(self.accepted & self.told.keys())
        made = delivery(body_of(kind, self.told[known[which % len(known)]]), f"T-{self.posted}-{kind}")
        self.strange[made.parsed.id] = wanted_state(kind)
        self.posted += 1
        self._survive(lambda: self._receive([made]))

    # What we do

    @rule(steps=st.lists(st.sampled_from(Role), min_size=1, max_size=4))
    def roles(self, steps: list[Role]) -> None:
        for step in steps:
            self._survive(lambda role=step: getattr(self.process, role.name)())  # type: ignore[misc]

    @rule(
        pause=st.sampled_from(PAUSES),
        fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=4),
        earlier=st.sampled_from([None] * len(MISDEEDS) * 3 + MISDEEDS),
        then=st.sampled_from(("nothing", "tick", "wait", "wait and lose the log")),
    )
    def mail(self, pause: timedelta, fates: list[Fate], earlier: tuple[str, str] | None, then: str) -> None:
        """Mails go out, to a relay that does all this; often those too that are to be tried again."""
        self.wait(pause, rotates=1)
        if earlier:
            self.harbour.postfix.script.setdefault(earlier[0], []).append(earlier[1])
        self.harbour.postfix.fates.extend(fates)
        self.roles([Role.mail])
        if then.startswith("wait"):
            self.wait(LONG_ENOUGH, rotates=int(then == "wait"))
        if then != "nothing":
            self.roles([Role.tick])

    @rule(step=st.sampled_from(WAITS), rotates=st.integers(0, 4))
    def wait(self, step: timedelta, rotates: int) -> None:
        """Time passes. Now and then that is when the relay's log is rotated, and packed."""
        self.clock.advance(step)
        if rotates == 0:
            self.harbour.postfix.forget_log()
        self.harbour.postfix.time_passes()

    @rule(rounds=st.lists(turns, min_size=2, max_size=6))
    def go_round(self, rounds: list[Turn]) -> None:
        """Every role again and again, with a misfortune or two in each round, and time between them."""
        for turn in rounds:
            self.harbour.postfix.fates.extend(turn.fates)
            for role in Role:
                if turn.storm and turn.before is role:
                    self.store(turn.storm, turn.after)
                self.roles([role])
            self.wait(turn.pause, rotates=turn.rotates)

    # What happens to us

    @rule(kind=st.sampled_from(KINDS), after=st.integers(0, 12))
    def store(self, kind: Kind, after: int) -> None:
        self.harbour.storm.arm(kind, after if kind in AT_STATEMENTS else after % 3)

    @rule(trouble=st.sampled_from(Trouble), which=st.integers(0, 3))
    def around(self, trouble: Trouble, which: int) -> None:
        broker = self.harbour.broker
        match trouble:
            case Trouble.paypal_leaves | Trouble.paypal_returns:
                self.paypal.is_away = trouble is Trouble.paypal_leaves
            case Trouble.broker_leaves | Trouble.broker_returns:
                broker.is_away = trouble is Trouble.broker_leaves
            case Trouble.broker_loses:
                broker.lose(which)
            case Trouble.broker_repeats:
                broker.repeat(which)

    @rule(forgets=st.booleans())
    def die(self, forgets: bool) -> None:
        """kill -9, and a new process. A broker inside it forgets everything."""
        self.process.die()
        self.harbour.broker.their_reader_died(forgets=forgets)
        self.process = Process(self.harbour)

    # What holds

    @invariant()
    def promises_hold(self) -> None:
        self.looks += 1
        self.promises.hold(self.accepted)
        if self.looks % AUDITS == 0:
            self.promises.books_follow_from_what_was_handled(self.told | self.paypal.told)

    def rest(self) -> None:
        """Peace: all that was put off is done, and what is true at rest is true."""
        self._make_peace()
        while self.to_tell:
            self._post(self.to_tell[:50], keep=False)
        self._until_idle(self.promises.next_due)
        self.promises.hold(self.accepted)
        self.promises.hold_at_rest(self.told | self.paypal.told, self.world, self.strange)
        ScenarioMachine.rested += 1

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.rest()
                self._reminders()
        finally:
            self.process.die()
            self.harbour.close()
            self._folder.cleanup()

    # How

    def _survive(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except Crash:
            self.die(forgets=self.posted % 2 == 0)

    def _post(self, deliveries: list[Delivery], *, keep: bool) -> None:
        """Post these, each as one more transmission. What is answered 200 is PayPal's no more, unless it is kept."""
        for told in deliveries:
            self.world.apply(told)
            self.told[told.id] = told.event
            self.posted += 1
        stored = self._receive(
            [delivery(told.body, f"T-{self.posted}-{number}") for number, told in enumerate(deliveries)]
        )
        if not keep:
            self.to_tell = [told for told in self.to_tell if told.id not in stored]

    def _receive(self, deliveries: list[inbox.NewEvent]) -> set[str]:
        """The ids that were answered 200."""
        stored = {answer.event_id for answer in self.process.receive(deliveries) if isinstance(answer, StoreResult)}
        self.accepted |= stored
        return stored

    def _make_peace(self) -> None:
        self.harbour.storm.calm()
        self.harbour.postfix.behave()
        self.paypal.is_away = self.harbour.broker.is_away = False

    def _until_idle(self, put_off: Callable[[], list[Any]]) -> None:
        """Round after round; where nothing is due, on to the moment for which something was put off."""
        for _ in range(ROUNDS):
            self._settle_by_hand()
            self.process.tick()
            while self.harbour.broker.ids:
                self.process.work()
            self.process.read()
            self.process.mail()
            self.wait(LONG_ENOUGH, rotates=1)
            later = put_off()
            if not later and not self.harbour.broker.ids and not self._questions():
                return
            if later and min(later) > self.clock.now():
                self.clock.move_to(min(later))
                self.harbour.postfix.time_passes()
        raise AssertionError(f"no rest after {ROUNDS} rounds: {self.promises.unrest()}")

    def _questions(self) -> bool:
        """Whether PayPal is still to be asked something. Time is moved on to when."""
        due = self.promises.questions_due()
        if due and min(due) > self.clock.now():
            self.clock.move_to(min(due))
        return bool(due)

    def _settle_by_hand(self) -> None:
        """A doubt without a log is the operator's: who asks the customer, and tells."""
        with self.harbour.watcher.transaction() as session:
            for row in session.query(Mail).where(Mail.state == "doubt"):
                if row.due_at and row.due_at < self.clock.now() - timedelta(minutes=5):
                    sent = bool(self.harbour.postfix.delivered[sender(row)])
                    outbox.resolve_doubt(session, row.id, self.clock.now(), sent=sent)

    def _reminders(self) -> None:
        """On to the first renewals: each reminder is owed and sent once."""
        due = sorted(self.promises.reminders_due())
        if due and due[0] > self.clock.now():
            self.clock.move_to(due[0])
            self._until_idle(self.promises.next_due)
            self.promises.hold(self.accepted)
            self.promises.hold_at_rest(self.told | self.paypal.told, self.world, self.strange)

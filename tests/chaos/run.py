"""Run one seed: post events while faults are injected, wait until no work is left, and check the result."""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import orjson
from sqlalchemy import text

from pipeline.clock import SystemClock
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.simulator.server.delivery import WebhookSender
from pipeline.simulator.timeline import Delivery
from tests.chaos import load as loads
from tests.chaos.environment import WEBHOOK_ID, Column, Ground, Stage
from tests.chaos.faults import Faults
from tests.chaos.invariants import StageCheck, bring_forward, waiting
from tests.chaos.load import Load

AT_ONCE = 8  # Connections of the webhook sender.
REST_SECONDS = 60.0  # Limit of the recovery time. The target is half of it.
# The recovery is aborted after this time. A recovery above REST_SECONDS is a violation, but the result is checked.
STUCK_SECONDS = 180.0
FORWARD_SECONDS = 10.0  # Interval of shortening the retry delays. A shorter one would use up the retries.
TRIES = 400  # Attempts of the webhook sender. PayPal makes fewer, but over days.
PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Fire:
    """Intensity: deliveries of a seed including repetitions, the seconds in which they are posted, and the faults.

    `patient`: wait for every retry and lease instead of shortening it.
    """

    events: int = 450
    seconds: float = 14.0
    strikes: int = 14
    patient: bool = False


@dataclass
class Result:
    """Result of one seed."""

    seed: int
    column: Column
    events: int = 0
    posted: int = 0  # Including repetitions.
    mails: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    refused: int = 0  # Answers other than 200.
    doubts: int = 0  # Mails in doubt that were resolved from the relay's log.
    lost: int = 0
    duplicated_effects: int = 0
    duplicated_mails: int = 0
    recovery_seconds: float = 0.0
    seconds: float = 0.0  # Total duration of the seed.
    died: dict[str, int] = field(default_factory=dict)  # Unexpected exits by role.
    violations: list[str] = field(default_factory=list)
    last: str = ""  # The work that the recovery waited for last.


def seed(ground: Ground, column: Column, number: int, fire: Fire, keep: Path | None = None) -> Result:
    """Run one seed. The same number gives the same load and faults, but their timing depends on the machine."""
    now, began = datetime.now(UTC), time.monotonic()  # noqa: TID251 - the roles read the machine's clock
    result = Result(number, column)
    load = loads.make(number, fire.events, now)
    with tempfile.TemporaryDirectory(prefix="smt-chaos-") as folder:
        expected = loads.expected_result(load, Path(folder), now)
    result.events, result.posted = len(load.ids), len(load.deliveries)
    ground.start(column)
    with Stage(ground, column, load.world) as stage:
        accepted = _under_fire(stage, load, fire, result)
        left = _come_to_rest(stage, result, patient=fire.patient)
        if left:
            result.violations.append(f"work left {STUCK_SECONDS:g} s after the last fault: {left}")
        elif result.recovery_seconds > REST_SECONDS and not fire.patient:
            result.violations.append(f"slow: no work left only {result.recovery_seconds:.0f} s after the last fault")
        check = StageCheck(stage, load, expected, accepted)
        result.violations += check.violations
        result.lost, result.duplicated_effects, result.duplicated_mails = check.lost, check.effects, check.mails
        result.mails = len(ground.postfix.mails())
        for name, actor in stage.actors.items():
            result.doubts += _resolved_doubts(actor.output)
            if actor.died:
                result.died[name] = len(actor.died)
        if keep and (result.violations or result.died):
            _keep(stage, keep)
    result.violations += [f"unclean shutdown: {name}" for name in stage.unclean]
    result.seconds = time.monotonic() - began
    return result


def _resolved_doubts(output: str) -> int:
    """Return the number of mails in doubt that a scheduler's log reports as resolved."""
    lines = [orjson.loads(line) for line in output.splitlines() if '"doubts_resolved"' in line]
    return sum(line["sent"] + line["queued_again"] for line in lines)


def _under_fire(stage: Stage, load: Load, fire: Fire, result: Result) -> set[str]:
    """Post all events while faults are injected. Return the ids of the events that were answered with 200."""
    rng = Random(result.seed)
    accepted: set[str] = set()
    statuses: Counter[int] = Counter()
    faults = Faults(stage, rng)
    injector = threading.Thread(target=faults.strike, args=(fire.strikes, fire.seconds), daemon=True)

    def done(delivery: Delivery, status: int) -> None:
        statuses[status] += 1
        if status == 200:
            accepted.add(delivery.id)

    def pause(attempt: int) -> None:
        statuses[-1] += 1
        time.sleep(PAUSE_SECONDS)

    sender = WebhookSender(
        stage.url, stage.ground.signer, WEBHOOK_ID, tries=TRIES, timeout=10.0, pause=pause, clock=SystemClock()
    )
    with sender:
        injector.start()
        sender.deliver(_paced(load.deliveries, Random(result.seed), fire.seconds), at_once=AT_ONCE, done=done)
        injector.join()
        faults.until_calm()
    result.faults, result.refused = dict(faults.counted), statuses[-1]
    result.violations += [f"a fault could not be injected or undone: {error}" for error in faults.errors]
    return accepted


def _paced(deliveries: Sequence[Delivery], rng: Random, seconds: float) -> Iterator[Delivery]:
    """Yield the deliveries in bursts within `seconds`, so that the receiver gets batches."""
    began, place = time.monotonic(), 0
    while place < len(deliveries):
        burst = rng.randint(1, 30)
        time.sleep(max(0.0, began + seconds * place / len(deliveries) - time.monotonic()))
        yield from deliveries[place : place + burst]
        place += burst


def _come_to_rest(stage: Stage, result: Result, *, patient: bool) -> dict[str, int]:
    """Wait until no work is left and record the seconds since the last fault. Return the work that is left."""
    began = time.monotonic()
    forward_at, left = 0.0, {"everything": 1}
    while (passed := time.monotonic() - began) < (STUCK_SECONDS * 3 if patient else STUCK_SECONDS):
        try:
            if not patient and passed >= forward_at:
                forward_at = passed + FORWARD_SECONDS
                with stage.database.transaction() as session:
                    bring_forward(session)
            with stage.database.reading() as session:
                left = waiting(session, datetime.now(UTC))  # noqa: TID251
        except DatabaseUnavailableError:
            left = {"the database": 1}
        result.recovery_seconds = passed
        if not left:
            if not stage.ground.postfix.queue():
                return {}
            stage.ground.postfix.flush()
            left = {"mails in Postfix's queue": 1}
        result.last = ", ".join(left)
        time.sleep(0.5)
    return left


def _keep(stage: Stage, folder: Path) -> None:
    """Copy the roles' output, the relay's log and the main tables to this folder for a later analysis."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, actor in stage.actors.items():
        (folder / f"{name}.log").write_text(actor.output)
    (folder / "relay.log").write_text(stage.ground.postfix.log)
    with stage.database.reading() as session:
        for table in ("mail", "event"):
            rows = session.execute(text(f"SELECT * FROM {table}")).mappings()
            skip = {"frozen", "facts", "recipient", "body", "personal_data"}
            lines = [str({key: str(value) for key, value in row.items() if key not in skip}) for row in rows]
            (folder / f"{table}.txt").write_text("\n".join(lines))

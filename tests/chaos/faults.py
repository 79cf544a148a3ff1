"""Fault injection: each fault begins at a moment that the seed selects, lasts some seconds, and is undone.

Several faults can last at the same time, but only one on each target.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sqlalchemy import select

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.db.models import Mail
from tests.chaos.environment import Actor, Stage, libfaketime
from tests.chaos.proxy import PASS, Fault
from tests.support.servers import Server

# Long enough that another process can take over the work of a frozen one before it continues.
FROZEN_SECONDS = (2.0, 16.0)
DOWN_SECONDS = (0.3, 3.0)
PROXY_SECONDS = (0.5, 3.0)
SILENT_SECONDS = (3.0, 14.0)  # For a connection to the database or broker.
WRONG_CLOCK_SECONDS = (2.0, 8.0)  # A role's clock changes within a second.
WRONG_CLOCKS = ("+86400", "-3600")  # A day ahead, an hour late. A mail becomes too old only after seven days.
MAIL_WAIT_SECONDS = 3.0  # A fault waits this long for a mail that is being sent.
CANDIDATES = 4  # Faults drawn for each moment. The first one with a free target is used.
RECOVERY_SECONDS = 5.0  # PostgreSQL must recover in this time when the disk has space again.
BALLAST = "ballast"  # The file that fills the small disk.


@dataclass(frozen=True)
class Strike:
    """One fault: its target, how it begins, its duration in seconds, and how it is undone."""

    kind: str
    target: str
    seconds: float
    begin: Callable[[], object]
    end: Callable[[], object]


Maker = Callable[[Stage, Random], Strike]


class Faults:
    """Injects faults into a stage from separate threads, at moments that the seed selects."""

    def __init__(self, stage: Stage, rng: Random) -> None:
        self._stage, self._rng = stage, rng
        self._makers = [maker for maker, weight in MAKERS[stage.column] for _ in range(weight)]
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.counted: Counter[str] = Counter()
        self.errors: list[str] = []  # For example a server that did not restart. Then the run is invalid.

    def strike(self, count: int, seconds: float) -> None:
        """Inject up to `count` faults within `seconds`. Return when the last one has begun."""
        moments = sorted(self._rng.uniform(0.0, seconds) for _ in range(count))
        drawn = [
            [self._rng.choice(self._makers)(self._stage, self._rng) for _ in range(CANDIDATES)] for _ in range(count)
        ]
        began = time.monotonic()
        for moment, strikes in zip(moments, drawn, strict=True):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            with self._lock:
                strike = next((strike for strike in strikes if strike.target not in self._busy), None)
                if strike is None:
                    continue
                self._busy.add(strike.target)
            self.counted[strike.kind] += 1
            thread = threading.Thread(target=self._run, args=(strike,), name=strike.kind, daemon=True)
            thread.start()
            self._threads.append(thread)

    def until_calm(self) -> None:
        """Wait until all faults are undone."""
        for thread in self._threads:
            thread.join()

    def _run(self, strike: Strike) -> None:
        try:
            strike.begin()
            time.sleep(strike.seconds)
        except Exception as error:  # noqa: BLE001 - it is reported with the seed
            self.errors.append(f"{strike.kind}: {error}")
        try:
            strike.end()
        except Exception as error:  # noqa: BLE001
            self.errors.append(f"after {strike.kind}: {error}")
        with self._lock:
            self._busy.discard(strike.target)


def _killed(role: str) -> Maker:
    def make(stage: Stage, rng: Random) -> Strike:
        actor = rng.choice(stage.actor(role))

        def begin() -> None:
            if role in ("mailer", "run"):
                _wait_for_sending(stage, rng)
            actor.kill()

        return Strike(f"kill -9 {role}", actor.name, 0.0, begin, _nothing)

    return make


def _frozen(role: str) -> Maker:
    def make(stage: Stage, rng: Random) -> Strike:
        actor = rng.choice(stage.actor(role))

        def begin() -> None:
            if role in ("mailer", "run"):
                _wait_for_sending(stage, rng)
            actor.freeze()

        return Strike(f"SIGSTOP {role}", actor.name, rng.uniform(*FROZEN_SECONDS), begin, actor.unfreeze)

    return make


def _frozen_and_disconnected(stage: Stage, rng: Random) -> Strike:
    """Freeze a mailer and cut its database connection. Others presume it dead, and then it continues."""
    actor: Actor = rng.choice(stage.actor("mailer"))

    def begin() -> None:
        _wait_for_sending(stage, rng)
        actor.freeze()
        stage.proxies["database"].fault = Fault("cut", after=0)
        time.sleep(0.3)
        stage.proxies["database"].fault = PASS

    return Strike("mailer frozen and cut off", actor.name, rng.uniform(14.0, 18.0), begin, actor.unfreeze)


def _rabbitmq(stage: Stage, rng: Random) -> Strike:
    server = stage.ground.rabbitmq
    return Strike(
        "kill -9 RabbitMQ", "rabbitmq", rng.uniform(*DOWN_SECONDS), lambda: server.stop(kill=True), server.start
    )


def _postgres(how: str) -> Maker:
    def make(stage: Stage, rng: Random) -> Strike:
        server = stage.ground.postgres
        stops = {
            "fast": server.stop,
            "immediate": lambda: _immediately(server),
            "kill -9": lambda: server.stop(kill=True),
        }
        return Strike(f"PostgreSQL stopped, {how}", "postgres", rng.uniform(*DOWN_SECONDS), stops[how], server.start)

    return make


def _postfix(stage: Stage, rng: Random) -> Strike:
    server = stage.ground.postfix
    return Strike("Postfix stopped", "postfix", rng.uniform(*DOWN_SECONDS), server.stop, server.start)


def _proxy_fault(name: str, *kinds: str) -> Maker:
    """Make the proxy in front of a server misbehave for some seconds."""

    def make(stage: Stage, rng: Random) -> Strike:
        proxy, kind = stage.proxies[name], rng.choice(kinds)
        fault = {
            "delay": Fault("delay", seconds=rng.uniform(0.05, 0.4)),
            "cut": Fault("cut", after=int(10 ** rng.uniform(0.0, 4.5))),
            "half_close": Fault("half_close", after=rng.randrange(2_000), seconds=0.5),
            "before_dot": Fault("before_dot"),
            "swallow": Fault("swallow", seconds=rng.uniform(0.0, 1.5)),
            "blackhole": Fault("blackhole"),
        }[kind]

        def put(what: Fault) -> None:
            proxy.fault = what

        def begin() -> None:
            if name == "relay":
                _wait_for_sending(stage, rng)
            put(fault)

        silent = kind == "blackhole" and name in ("database", "broker")
        seconds = rng.uniform(*(SILENT_SECONDS if silent else PROXY_SECONDS))
        return Strike(f"{name}: {kind}", f"proxy {name}", seconds, begin, lambda: put(PASS))

    return make


def _clock_wrong(role: str) -> Maker:
    """Set a role's clock wrong for some seconds."""

    def make(stage: Stage, rng: Random) -> Strike:
        if libfaketime() is None:
            return _killed(role)(stage, rng)
        actor, offset = rng.choice(stage.actor(role)), rng.choice(WRONG_CLOCKS)
        way = "a day ahead" if offset.startswith("+") else "an hour late"
        return Strike(
            f"clock {way}: {role}", f"clock of {actor.name}", rng.uniform(*WRONG_CLOCK_SECONDS),
            lambda: actor.set_clock(offset), lambda: actor.set_clock("+0"),
        )  # fmt: skip

    return make


def _alarm(stage: Stage, rng: Random) -> Strike:
    """Raise RabbitMQ's disk alarm. RabbitMQ then blocks the publishers and tells no other client."""
    server, alarm = stage.ground.rabbitmq, "{resource_limit, disk, node()}"

    def begin() -> None:
        server.ctl("eval", f"rabbit_alarm:set_alarm({{{alarm}, []}}).")

    def end() -> None:
        server.ctl("eval", f"rabbit_alarm:clear_alarm({alarm}).")

    return Strike("RabbitMQ's disk full", "rabbitmq", rng.uniform(*PROXY_SECONDS), begin, end)


def _postgres_disk_full(stage: Stage, rng: Random) -> Strike:
    if not stage.ground.small_disk:
        return _postgres("kill -9")(stage, rng)
    server, path = stage.ground.postgres, stage.ground.disk / BALLAST

    def end() -> None:
        path.unlink(missing_ok=True)
        until = time.monotonic() + RECOVERY_SECONDS
        while not server.answers():  # PostgreSQL exits if it has no space for its WAL, and can fail to restart.
            if time.monotonic() > until:
                server.restart(kill=True)
            time.sleep(0.2)

    return Strike("PostgreSQL's disk full", "postgres", rng.uniform(*PROXY_SECONDS), lambda: _fill(path), end)


def _disk_full(stage: Stage, rng: Random) -> Strike:
    path = stage.data / BALLAST
    return Strike(
        "disk full", "disk", rng.uniform(*PROXY_SECONDS), lambda: _fill(path), lambda: path.unlink(missing_ok=True)
    )


def _no_small_disk(stage: Stage, rng: Random) -> Strike:
    return _disk_full(stage, rng) if stage.small_disk else _killed("run")(stage, rng)


# The faults of each column. The number is the weight of a fault.
MAKERS: dict[str, list[tuple[Maker, int]]] = {
    "right": [
        (_killed("web"), 2), (_killed("worker"), 3), (_killed("mailer"), 4), (_killed("scheduler"), 1),
        (_frozen("worker"), 1), (_frozen("mailer"), 1), (_frozen_and_disconnected, 2),
        (_rabbitmq, 2), (_postgres("fast"), 1), (_postgres("immediate"), 1), (_postgres("kill -9"), 1), (_postfix, 2),
        (_proxy_fault("relay", "delay", "cut", "half_close", "before_dot", "swallow", "swallow", "blackhole"), 5),
        (_proxy_fault("database", "delay", "cut", "cut", "blackhole"), 2),
        (_proxy_fault("broker", "delay", "cut", "blackhole"), 2),
        (_clock_wrong("web"), 1), (_clock_wrong("worker"), 1), (_clock_wrong("mailer"), 1),
        (_clock_wrong("scheduler"), 1), (_postgres_disk_full, 1), (_alarm, 1),
        (_proxy_fault("web", "delay", "cut", "half_close"), 1),
    ],
    "embedded": [
        (_killed("run"), 8), (_frozen("run"), 1), (_clock_wrong("run"), 2), (_postfix, 2), (_no_small_disk, 2),
        (_proxy_fault("relay", "delay", "cut", "half_close", "before_dot", "swallow", "swallow", "blackhole"), 5),
        (_proxy_fault("web", "delay", "cut", "half_close"), 1),
    ],
}  # fmt: skip


def _wait_for_sending(stage: Stage, rng: Random) -> None:
    """Wait until a mail is being sent, and a moment longer. Otherwise most faults would hit idle mailers."""
    until = time.monotonic() + MAIL_WAIT_SECONDS
    while time.monotonic() < until:
        with suppress(DatabaseUnavailableError), stage.database.reading() as session:
            if session.execute(select(Mail.id).where(Mail.state == "sending").limit(1)).first():
                break
        time.sleep(0.03)
    time.sleep(rng.uniform(0.0, 0.2))


def _nothing() -> None:
    """Do nothing: the watcher restarts a killed role."""


def _immediately(server: Server) -> None:
    """Stop like `pg_ctl stop -m immediate`: without a checkpoint, so the next start recovers from the WAL."""
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGQUIT)
    server.stop()


def _fill(path: Path) -> None:
    """Fill the disk completely with this file."""
    with path.open("wb", buffering=0) as file:
        for piece in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * piece)

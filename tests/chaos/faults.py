"""What goes wrong, by seed: each fault strikes, lasts a while, and is put right again. Several may last at once.

A fault has a target, and no two last on one target at the same time.
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

# Long enough that whoever takes a frozen process for dead has taken its work away when it wakes.
FROZEN_SECONDS = (2.0, 16.0)
AWAY_SECONDS = (0.3, 3.0)
ASTRAY_SECONDS = (0.5, 3.0)
SILENT_SECONDS = (3.0, 14.0)  # of a way to database or broker
WRONG_SECONDS = (2.0, 8.0)  # of a clock; a role notices within a second
WRONG_CLOCKS = ("+86400", "-3600")  # a day ahead, an hour late: far less than a mail's seven days of being news
AMID_SECONDS = 3.0  # how long a strike waits for mail to be sent
DRAWN = 4  # faults for each moment: the first whose target is not being struck already
RECOVERS_SECONDS = 5.0  # that PostgreSQL has to come back by itself when there is room again
BALLAST = "ballast"  # the file that fills the small disk


@dataclass(frozen=True)
class Strike:
    """One fault: who it hits, what happens, and how it is put right after so many seconds."""

    kind: str
    target: str
    seconds: float
    begin: Callable[[], object]
    end: Callable[[], object]


Maker = Callable[[Stage, Random], Strike]


class Faults:
    """Strikes at a stage, from threads of their own, at moments that the seed says."""

    def __init__(self, stage: Stage, rng: Random) -> None:
        self._stage, self._rng = stage, rng
        self._makers = [maker for maker, weight in MAKERS[stage.column] for _ in range(weight)]
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.counted: Counter[str] = Counter()
        self.errors: list[str] = []  # a server that did not come back, say: then the run proves nothing

    def strike(self, count: int, seconds: float) -> None:
        """So many faults, spread over so many seconds; returns when the last has begun."""
        moments = sorted(self._rng.uniform(0.0, seconds) for _ in range(count))
        drawn = [[self._rng.choice(self._makers)(self._stage, self._rng) for _ in range(DRAWN)] for _ in range(count)]
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
        """Wait until everything is put right again."""
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
                _amid_mail(stage, rng)
            actor.kill()

        return Strike(f"kill -9 {role}", actor.name, 0.0, begin, _nothing)

    return make


def _frozen(role: str) -> Maker:
    def make(stage: Stage, rng: Random) -> Strike:
        actor = rng.choice(stage.actor(role))

        def begin() -> None:
            if role in ("mailer", "run"):
                _amid_mail(stage, rng)
            actor.freeze()

        return Strike(f"SIGSTOP {role}", actor.name, rng.uniform(*FROZEN_SECONDS), begin, actor.thaw)

    return make


def _cut_off(stage: Stage, rng: Random) -> Strike:
    """A mailer that is frozen while its connection to the database is lost: it is taken for dead, and wakes."""
    actor: Actor = rng.choice(stage.actor("mailer"))

    def begin() -> None:
        _amid_mail(stage, rng)
        actor.freeze()
        stage.proxies["database"].fault = Fault("cut", after=0)
        time.sleep(0.3)
        stage.proxies["database"].fault = PASS

    return Strike("mailer frozen and cut off", actor.name, rng.uniform(14.0, 18.0), begin, actor.thaw)


def _rabbitmq(stage: Stage, rng: Random) -> Strike:
    server = stage.ground.rabbitmq
    return Strike(
        "kill -9 RabbitMQ", "rabbitmq", rng.uniform(*AWAY_SECONDS), lambda: server.stop(kill=True), server.start
    )


def _postgres(how: str) -> Maker:
    def make(stage: Stage, rng: Random) -> Strike:
        server = stage.ground.postgres
        stops = {
            "fast": server.stop,
            "immediate": lambda: _immediately(server),
            "kill -9": lambda: server.stop(kill=True),
        }
        return Strike(f"PostgreSQL stopped, {how}", "postgres", rng.uniform(*AWAY_SECONDS), stops[how], server.start)

    return make


def _postfix(stage: Stage, rng: Random) -> Strike:
    server = stage.ground.postfix
    return Strike("Postfix stopped", "postfix", rng.uniform(*AWAY_SECONDS), server.stop, server.start)


def _astray(name: str, *kinds: str) -> Maker:
    """The proxy before a server misbehaves for a while."""

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
                _amid_mail(stage, rng)
            put(fault)

        silent = kind == "blackhole" and name in ("database", "broker")
        seconds = rng.uniform(*(SILENT_SECONDS if silent else ASTRAY_SECONDS))
        return Strike(f"{name}: {kind}", f"proxy {name}", seconds, begin, lambda: put(PASS))

    return make


def _clock_wrong(role: str) -> Maker:
    """A role's clock jumps, and some seconds later back."""

    def make(stage: Stage, rng: Random) -> Strike:
        if libfaketime() is None:
            return _killed(role)(stage, rng)
        actor, offset = rng.choice(stage.actor(role)), rng.choice(WRONG_CLOCKS)
        way = "a day ahead" if offset.startswith("+") else "an hour late"
        return Strike(
            f"clock {way}: {role}", f"clock of {actor.name}", rng.uniform(*WRONG_SECONDS),
            lambda: actor.set_clock(offset), lambda: actor.set_clock("+0"),
        )  # fmt: skip

    return make


def _alarm(stage: Stage, rng: Random) -> Strike:
    """RabbitMQ takes its disk for full: it blocks who publishes, and says so to nobody else."""
    server, alarm = stage.ground.rabbitmq, "{resource_limit, disk, node()}"

    def begin() -> None:
        server.ctl("eval", f"rabbit_alarm:set_alarm({{{alarm}, []}}).")

    def end() -> None:
        server.ctl("eval", f"rabbit_alarm:clear_alarm({alarm}).")

    return Strike("RabbitMQ's disk full", "rabbitmq", rng.uniform(*ASTRAY_SECONDS), begin, end)


def _postgres_disk_full(stage: Stage, rng: Random) -> Strike:
    if not stage.ground.small_disk:
        return _postgres("kill -9")(stage, rng)
    server, path = stage.ground.postgres, stage.ground.disk / BALLAST

    def end() -> None:
        path.unlink(missing_ok=True)
        until = time.monotonic() + RECOVERS_SECONDS
        while not server.answers():  # without room for its log it ends, and may find none to begin again
            if time.monotonic() > until:
                server.restart(kill=True)
            time.sleep(0.2)

    return Strike("PostgreSQL's disk full", "postgres", rng.uniform(*ASTRAY_SECONDS), lambda: _fill(path), end)


def _disk_full(stage: Stage, rng: Random) -> Strike:
    path = stage.data / BALLAST
    return Strike(
        "disk full", "disk", rng.uniform(*ASTRAY_SECONDS), lambda: _fill(path), lambda: path.unlink(missing_ok=True)
    )


def _no_small_disk(stage: Stage, rng: Random) -> Strike:
    return _disk_full(stage, rng) if stage.small_disk else _killed("run")(stage, rng)


# How each column is struck; a fault stands as often as its number says.
MAKERS: dict[str, list[tuple[Maker, int]]] = {
    "right": [
        (_killed("web"), 2), (_killed("worker"), 3), (_killed("mailer"), 4), (_killed("scheduler"), 1),
        (_frozen("worker"), 1), (_frozen("mailer"), 1), (_cut_off, 2),
        (_rabbitmq, 2), (_postgres("fast"), 1), (_postgres("immediate"), 1), (_postgres("kill -9"), 1), (_postfix, 2),
        (_astray("relay", "delay", "cut", "half_close", "before_dot", "swallow", "swallow", "blackhole"), 5),
        (_astray("database", "delay", "cut", "cut", "blackhole"), 2),
        (_astray("broker", "delay", "cut", "blackhole"), 2),
        (_clock_wrong("web"), 1), (_clock_wrong("worker"), 1), (_clock_wrong("mailer"), 1),
        (_clock_wrong("scheduler"), 1), (_postgres_disk_full, 1), (_alarm, 1),
        (_astray("web", "delay", "cut", "half_close"), 1),
    ],
    "embedded": [
        (_killed("run"), 8), (_frozen("run"), 1), (_clock_wrong("run"), 2), (_postfix, 2), (_no_small_disk, 2),
        (_astray("relay", "delay", "cut", "half_close", "before_dot", "swallow", "swallow", "blackhole"), 5),
        (_astray("web", "delay", "cut", "half_close"), 1),
    ],
}  # fmt: skip


def _amid_mail(stage: Stage, rng: Random) -> None:
    """Wait until mail is being sent, then a moment more: otherwise most strikes would find the mailers idle."""
    until = time.monotonic() + AMID_SECONDS
    while time.monotonic() < until:
        with suppress(DatabaseUnavailableError), stage.database.reading() as session:
            if session.execute(select(Mail.id).where(Mail.state == "sending").limit(1)).first():
                break
        time.sleep(0.03)
    time.sleep(rng.uniform(0.0, 0.2))


def _nothing() -> None:
    """A role that was killed is started anew by whoever watches it."""


def _immediately(server: Server) -> None:
    """`pg_ctl stop -m immediate`: no checkpoint, so the next start recovers from the log."""
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGQUIT)
    server.stop()


def _fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file:
        for piece in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * piece)

"""Private PostgreSQL, RabbitMQ and Postfix servers on loopback for tests and benchmarks.

    with Postgres() as postgres, RabbitMQ() as rabbitmq, Postfix() as postfix:
        ... postgres.url, rabbitmq.url, postfix.smtp_url
        postgres.stop(kill=True)    # like a power failure
        postgres.start()            # same folder, same port

Each server has its own folder and ports and uses no configuration of the machine. Several can run at the same time, also
next to the machine's servers. A server ends when the process that started it ends, for any reason.
"""

import json
import os
import pwd
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import psycopg

from tests.support.subprocesses import Account, ManagedProcess, account, answers, free_port, run, until


class Missing(Exception):
    """The program is not installed or cannot be started by this user. The message says which program and what to do."""


class Server:
    """One private server. Without a `folder` it creates one and removes it at the end of `with`.

    For root, a given `folder` must be accessible to other users, because PostgreSQL and RabbitMQ refuse to run as root.
    """

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path | None = None) -> None:
        self._made = None if folder else Path(tempfile.mkdtemp(prefix="smt-test-"))
        self.folder = folder or self._made or Path()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        self.port = free_port()
        self._process: ManagedProcess | None = None

    def start(self) -> Self:
        """Start the server and wait until it answers. Raises Missing, or RuntimeError with the end of its log."""
        raise NotImplementedError

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server normally, or with `kill` like a power failure. The folder stays for the next start."""
        if self._process:
            self._process.end(self.stop_signal, kill=kill)
            self._process = None

    def restart(self, *, kill: bool = False) -> Self:
        """Stop and start the server with the same folder and ports."""
        self.stop(kill=kill)
        return self.start()

    @property
    def pid(self) -> int:
        """Process id of the server's first process."""
        assert self._process, f"{type(self).__name__} is not running"
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)


class Postgres(Server):
    """A PostgreSQL cluster. `url` is an SQLAlchemy URL of the superuser and the database `postgres`.

    `settings` are added to the default server settings.
    """

    stop_signal = signal.SIGINT  # Fast shutdown: ends the sessions without waiting.

    def __init__(self, folder: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self._settings = {"port": self.port, **_POSTGRES_SETTINGS, **(settings or {})}

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> Self:
        programs, data, owner = _postgres_programs(), self.folder / "data", account("postgres")
        if not data.exists():
            _hand_over(self.folder, owner)
            run([programs / "initdb", "-D", data, *_INITDB], self.folder, owner)
        flags = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        self._process = ManagedProcess([programs / "postgres", "-D", data, *flags], self.folder, owner)
        self._process.wait_until(self.answers)
        return self

    def answers(self) -> bool:
        """Return whether the server accepts connections now."""
        try:
            psycopg.connect(plain(self.url), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


_INITDB = ("-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C", "--no-sync")
_POSTGRES_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200}


class RabbitMQ(Server):
    """A RabbitMQ node. `url` is for the user guest and the virtual host `/`."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._epmd_port, self._peers_port = free_port(), free_port()
        self._epmd: ManagedProcess | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> Self:
        epmd, program = _rabbitmq_programs()
        owner, environment = account("rabbitmq", "nobody"), self._environment()
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n{_RABBITMQ_CONF}")
        _hand_over(self.folder, owner)
        # Otherwise Erlang starts epmd as a daemon, which keeps running.
        self._epmd = ManagedProcess(
            [epmd, "-port", self._epmd_port, "-address", "127.0.0.1"], self.folder, owner, environment
        )
        self._epmd.wait_until(lambda: answers(self._epmd_port))
        self._process = ManagedProcess([program], self.folder, owner, environment)
        self._process.wait_until(lambda: answers(self.port, b"AMQP\x00\x00\x09\x01"))
        return self

    def stop(self, *, kill: bool = False) -> None:
        super().stop(kill=kill)
        if self._epmd:
            self._epmd.end(kill=True)
            self._epmd = None

    def ctl(self, *words: str) -> str:
        """Run `rabbitmqctl` and return its output, e.g. `ctl("list_queues", "name")`. It takes about a second."""
        command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "--silent", "-n", self._node, *words]
        return run(command, self.folder, account("rabbitmq", "nobody"), self._environment())

    @contextmanager
    def vhost(self, name: str) -> Iterator[str]:
        """Create a virtual host, yield its URL, and delete it at the end."""
        self.ctl("eval", _ADD_VHOST.format(name=name))
        yield self.url.removesuffix("/") + name
        self.ctl("delete_vhost", name)

    @property
    def _node(self) -> str:
        return f"smt{self.port}@localhost"

    def _environment(self) -> dict[str, str]:
        here = str(self.folder)
        return {
            "HOME": here,  # Erlang stores its cookie here.
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/none.config",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{here}/none",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/none.env",
            "RABBITMQ_DIST_PORT": str(self._peers_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "yes",  # Makes the script exec the server, so the pid is the server's.
        }


# Same as add_vhost and set_permissions, but with one start of rabbitmqctl instead of two.
_ADD_VHOST = """
    rabbit_vhost:add(<<"{name}">>, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).
"""
_RABBITMQ_CONF = "disk_free_limit.absolute = 10MB\n"  # The default blocks every publisher when the disk is nearly full.


class Relay:
    """A mail server that accepts mail at `smtp_url` and delivers all of it into `maildir`, for any recipient."""

    def __init__(self, smtp_url: str, maildir: Path) -> None:
        self.smtp_url, self.maildir = smtp_url, maildir

    def mails(self) -> list[bytes]:
        """Return the bytes of every delivered mail, oldest first."""
        files = [(path.stat().st_mtime_ns, path) for path in self.maildir.glob("new/*")]
        return [path.read_bytes() for _, path in sorted(files)]

    def wait_for(self, count: int, seconds: float = 30) -> list[bytes]:
        """Wait for `count` mails and return all. Raises AssertionError after the timeout."""
        until(lambda: len(self.mails()) >= count, seconds, f"{count} mails in {self.maildir}")
        return self.mails()

    def clear(self) -> None:
        """Delete all delivered mails."""
        for path in self.maildir.glob("new/*"):
            path.unlink(missing_ok=True)


class Postfix(Server, Relay):
    """A Postfix on loopback that delivers into a Maildir; `settings` are added to its main.cf. Only root can start one.

    Three recipients, at any domain, are different. `refused@` gets 550 and `later@` gets 450 in the SMTP dialogue. Mail for
    `bounces@` is accepted and then bounced to the envelope sender; the delivery report is in the Maildir too.
    """

    def __init__(self, folder: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        Server.__init__(self, folder)
        Relay.__init__(self, f"smtp://127.0.0.1:{self.port}", self.folder / "mail" / "inbox")
        self.settings, self._etc = dict(settings or {}), self.folder / "etc"

    def start(self) -> Self:
        program = _postfix_program()
        if not self._etc.exists():
            self._configure()
            run([program, "-c", self._etc, "check"], self.folder)
        self._process = ManagedProcess(["/usr/lib/postfix/sbin/master", "-c", self._etc, "-s"], self.folder)
        self._process.wait_until(lambda: answers(self.port))
        return self

    def queue(self) -> list[dict[str, Any]]:
        """Return the queued mails from `postqueue -j`: `queue_id`, `queue_name`, `sender`, `recipients`, ..."""
        listed = run(["/usr/sbin/postqueue", "-c", self._etc, "-j"], self.folder)
        return [json.loads(line) for line in listed.splitlines()]

    def clear(self) -> None:
        """Wait until accepted mails are delivered, then delete all delivered mails."""
        active_queues = ("maildrop", "incoming", "active")
        until(lambda: not [mail for mail in self.queue() if mail["queue_name"] in active_queues], 30, "Postfix is idle")
        super().clear()

    def flush(self) -> None:
        """Retry the queued mails now."""
        run(["/usr/sbin/postqueue", "-c", self._etc, "-f"], self.folder)

    @property
    def log(self) -> str:
        """The complete log."""
        path = self.folder / "mail.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def _configure(self) -> None:
        nobody, postfix = pwd.getpwnam("nobody"), pwd.getpwnam("postfix")
        for name, owner in (("etc", 0), ("queue", 0), ("state", postfix.pw_uid), ("mail", nobody.pw_uid)):
            (self.folder / name).mkdir(exist_ok=True)
            os.chown(self.folder / name, owner, -1)
        main = _MAIN_CF.format(folder=self.folder, uid=nobody.pw_uid, gid=nobody.pw_gid)
        settings = dict(line.split(" =", 1) for line in main.strip().splitlines()) | self.settings
        (self._etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (self._etc / "master.cf").write_text(_MASTER_CF.format(port=self.port))
        (self._etc / "recipients").write_text("/^refused@/ 550 5.1.1 unknown\n/^later@/ 450 4.2.1 try again later\n")
        (self._etc / "mailboxes").write_text("!/^bounces@/ inbox/\n")


# in_flow_delay: the default of one second makes the speed bimodal. enable_long_queue_ids: short ids are reused.
# smtpd_reject_unlisted_recipient: mail for bounces@ must be accepted first and then refused at delivery.
_MAIN_CF = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/state
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = relay.example.com
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
local_transport = error:5.1.1 no local mail
default_transport = error:5.1.1 nothing leaves this machine
relay_transport = error:5.1.1 nothing leaves this machine
virtual_mailbox_domains = static:all
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = regexp:{folder}/etc/mailboxes
virtual_mailbox_limit = 0
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_recipient_restrictions = check_recipient_access regexp:{folder}/etc/recipients, permit_mynetworks, reject
smtpd_reject_unlisted_recipient = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 200
smtpd_peername_lookup = no
enable_long_queue_ids = yes
in_flow_delay = 0
notify_classes =
"""

_MASTER_CF = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
tlsmgr    unix - - n 1000? 1 tlsmgr
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
virtual   unix - n n - - virtual
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
anvil     unix - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""


def plain(url: str) -> str:
    """Convert an SQLAlchemy URL of PostgreSQL to the form that psycopg and psql accept."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def _postgres_programs() -> Path:
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    if not found:
        raise Missing("PostgreSQL is not installed (apt-get install postgresql)")
    return max(found, key=lambda path: [int(digits) for digits in re.findall(r"\d+", str(path))])


def _rabbitmq_programs() -> tuple[str, Path]:
    program, epmd = Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), shutil.which("epmd")
    if not program.exists() or not epmd:
        raise Missing("RabbitMQ is not installed (apt-get install rabbitmq-server)")
    return epmd, program


def _postfix_program() -> Path:
    program = Path("/usr/sbin/postfix")
    if not program.exists():
        raise Missing("Postfix is not installed (apt-get install postfix)")
    if os.geteuid():
        raise Missing("Only root can start Postfix (run the tests as root)")
    return program


def _hand_over(folder: Path, owner: Account) -> None:
    """Change the owner of a folder and the files in it to the account of the server."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.get("user", -1), owner.get("group", -1))

"""The Postfix relay of docker-compose.yml, started from its deployed files with the same rights.

The deployed start script completes the deployed configuration. The tests change only folders, port and addresses. As in
a container, the script is the first process of a process namespace and has only the capabilities of the compose file.
"""

import ipaddress
import re
import shutil
import smtplib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.clock import SystemClock
from pipeline.mailer.relay_log import RelayLog
from tests.support.servers import Postfix, Relay
from tests.support.subprocesses import ManagedProcess, answers, free_port, until

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "postfix"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
PRIVATE, UNKNOWN_CLIENT = "127.0.0.2", "127.0.0.3"


def test_mail_goes_to_the_next_hop_over_tls(tls_hop: Postfix) -> None:
    with relay(tls_hop.port, tls_hop.folder / "certificate.pem") as (port, _):
        send(port, "alice@example.com")
        mail = tls_hop.wait_for(1)[0]
    assert b"Delivered-To: alice@example.com" in mail
    assert b"(using TLSv1.3" in mail


def test_mail_is_kept_when_next_hop_offers_no_tls(relay_without_tls_hop: tuple[int, Path]) -> None:
    port, log = relay_without_tls_hop
    send(port, "alice@example.com")
    until(
        lambda: "status=deferred (TLS is required, but was not offered" in log.read_text(), 20, "the mail is deferred"
    )


def test_program_finds_accepted_mail_in_relay_log(relay_without_tls_hop: tuple[int, Path]) -> None:
    port, output = relay_without_tls_hop
    log = RelayLog(output.parent / "log" / "mail.log", SystemClock())
    assert log.queued_senders(["b+taken@example.com"]) == set()
    send(port, "alice@example.com", sender="b+taken@example.com")
    until(
        lambda: log.queued_senders(["b+taken@example.com", "b+never@example.com"]) != set(),
        20,
        "the log shows the mail",
    )
    assert log.queued_senders(["b+taken@example.com", "b+never@example.com"]) == {"b+taken@example.com"}


def test_unknown_client_is_refused(relay_without_tls_hop: tuple[int, Path]) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="Access denied"):
        send(relay_without_tls_hop[0], "alice@example.com", source=UNKNOWN_CLIENT)


def test_relay_accepts_mail_only_from_private_network() -> None:
    networks = re.search(r"^mynetworks = (.*)$", (FILES / "main.cf").read_text(), re.MULTILINE)
    private = COMPOSE["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert networks
    assert networks[1].split(", ") == ["127.0.0.0/8", private]
    assert ipaddress.ip_network(private).is_private


@contextmanager
def relay(next_hop: int, anchors: Path | None) -> Iterator[tuple[int, Path]]:
    """Run the relay; return its port and log. It sends to `next_hop` on localhost and trusts the CAs in `anchors`."""
    with tempfile.TemporaryDirectory(prefix="smt-test-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o711)
        running = ManagedProcess(
            with_container_rights(["sh", str(FILES / "start.sh")]),
            folder,
            environment={
                "RELAY_FROM": str(files_for(folder, port, anchors)),
                "RELAY_TO": str(folder / "run"),
                "RELAY_LOG": str(folder / "log"),
                "RELAY_HOSTNAME": "mail.example.com",
                "RELAY_NEXT_HOP": f"[localhost]:{next_hop}",
            },
        )
        try:
            running.wait_until(lambda: answers(port))
            yield port, running.log
        finally:
            running.end(kill=True)


def files_for(folder: Path, port: int, anchors: Path | None) -> Path:
    """Copy the deployed files, changed for this folder and port. Return the folder with the copies."""
    for name in ("files", "queue", "state", "log"):
        (folder / name).mkdir()
    shutil.chown(folder / "state", "postfix")
    (folder / "files" / "main.cf").write_text(changed((FILES / "main.cf").read_text(), folder, anchors))
    master = (FILES / "master.cf").read_text().replace("\n2525 ", f"\n127.0.0.1:{port} ")
    (folder / "files" / "master.cf").write_text(master)
    return folder / "files"


def changed(main: str, folder: Path, anchors: Path | None) -> str:
    """Return main.cf with the test's folders and addresses. The rest stays as deployed."""
    overrides = {
        "queue_directory": f"{folder}/queue",
        "data_directory": f"{folder}/state",
        "inet_interfaces": "127.0.0.1",
        "mynetworks": PRIVATE,
        "smtp_tls_CAfile": str(anchors or ""),
        "smtp_host_lookup": "native",
    }
    kept = [line for line in main.splitlines() if line.partition(" =")[0] not in overrides]
    return "\n".join([*kept, *(f"{name} = {value}" for name, value in overrides.items())]) + "\n"


def with_container_rights(command: list[str]) -> list[str]:
    rights = ",".join(["-all", *(f"+{name.lower()}" for name in COMPOSE["services"]["postfix"]["cap_add"])])
    return [
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("setpriv", "--no-new-privs", "--bounding-set", rights, "--inh-caps", "-all"),
        *command,
    ]


def send(port: int, recipient: str, source: str = PRIVATE, sender: str = "b+1@example.com") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20, source_address=(source, 0)) as smtp:
        smtp.sendmail(sender, [recipient], b"Subject: hello\r\n\r\nhello\r\n")


@pytest.fixture(scope="module")
def relay_without_tls_hop(postfix: Relay) -> Iterator[tuple[int, Path]]:
    require_private_postfix(postfix)
    with relay(int(postfix.smtp_url.rpartition(":")[2]), None) as running:
        yield running


@pytest.fixture
def tls_hop(postfix: Relay) -> Iterator[Postfix]:
    """Postfix that offers TLS. Its certificate for localhost is in its folder."""
    require_private_postfix(postfix)
    server = Postfix()
    certificate, key = server.folder / "certificate.pem", server.folder / "key.pem"
    write_certificate(certificate, key)
    server.settings |= {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(certificate),
        "smtpd_tls_key_file": str(key),
        "smtpd_tls_received_header": "yes",
    }
    with server:
        yield server


def require_private_postfix(postfix: Relay) -> None:
    if not isinstance(postfix, Postfix):
        pytest.skip("needs a private Postfix, not the one that SMT_TEST_SMTP_URL names")


def write_certificate(certificate: Path, key: Path) -> None:
    secret, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)  # noqa: TID251 - Postfix reads the machine's clock
    built = (
        x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)

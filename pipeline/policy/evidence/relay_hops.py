"""To whom the relay handed mail, from its log: Postfix writes `to=<…@domain>, relay=host[address]:port`, see postlogd(8)."""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(rb"to=<[^>@]*@([^>]+)>,.*?relay=([^\[,\s]+)\[([^\]]+)\]:(\d+)")
MAX_BYTES = 64 * 1024 * 1024  # read of each log file
# Ports for the submission of mail to a provider (RFC 6409, RFC 8314). A recipient's server takes mail at port 25.
SUBMISSION = ("465", "587", "2525")
FEW = 3  # so many domains may share a server by chance
# Organizations that keep the mailboxes of many domains, so that all mail may go to one of them without a provider between.
MAILBOX_HOSTS = (
    "google.com",
    "outlook.com",
    "protonmail.ch",
    "icloud.com",
    "yahoodns.net",
    "zoho.com",
    "messagingengine.com",
)


@dataclass(frozen=True, slots=True)
class Hop:
    """One delivery of the relay to another machine: the recipient's domain, the server's host name and port."""

    domain: str
    host: str
    port: str


def next_hops(log: Path) -> set[Hop]:
    """Return the deliveries in the log and its rotated files. Deliveries on the machine do not count."""
    return set(_hops(log))


def provider_among(hops: set[Hop]) -> str:
    """Return the organization to which the relay submits mail for other domains; "" if it hands each to its own server."""
    submitted = {_organization(each.host) for each in hops if each.port in SUBMISSION}
    if submitted:
        return min(submitted)
    domains = {each.domain for each in hops}
    foreign = {_organization(each.host) for each in hops if _organization(each.host) != _organization(each.domain)}
    direct = any(_organization(each.host) == _organization(each.domain) for each in hops)
    is_one = len(foreign) == 1 and not direct and len(domains) >= FEW and not foreign & set(MAILBOX_HOSTS)
    return foreign.pop() if is_one else ""


def _hops(log: Path) -> Iterator[Hop]:
    for path in sorted(log.parent.glob(f"{log.name}*")):
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                content = file.read(MAX_BYTES)
        except (OSError, EOFError):
            continue
        for domain, host, address, port in _LINE.findall(content):
            if not address.startswith((b"127.", b"::1", b"private/")):
                yield Hop(*(part.decode("ascii", "replace").lower() for part in (domain, host, port)))


def _organization(host: str) -> str:
    return ".".join(host.rstrip(".").split(".")[-2:])

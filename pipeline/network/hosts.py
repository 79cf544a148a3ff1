"""Check whether a host is this machine, or a name that is reserved for examples."""

from ipaddress import ip_address

# RFC 2606 and RFC 6761: no registry gives these names to anybody.
RESERVED_NAMES = frozenset({"example", "test", "invalid", "localhost", "example.com", "example.net", "example.org"})


def is_reserved_name(host: str) -> bool:
    """Return whether a host name is one of the reserved names, or below one of them."""
    labels = host.lower().rstrip(".").split(".")
    return labels[-1] in RESERVED_NAMES or ".".join(labels[-2:]) in RESERVED_NAMES


def is_on_this_machine(host: str) -> bool:
    """Return whether a host is this machine, so that a connection to it crosses no network."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified

"""Check whether a host is this machine."""

from ipaddress import ip_address


def is_on_this_machine(host: str) -> bool:
    """Return whether a host is this machine, so that a connection to it crosses no network."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified

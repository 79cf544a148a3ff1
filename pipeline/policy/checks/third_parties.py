"""Checks of sections 1 and 5: data stays on the vendor's servers, and PayPal is the only third party contacted."""

from ipaddress import IPv4Address, IPv6Address

from pipeline.network import egress
from pipeline.network.hosts import is_on_this_machine
from pipeline.policy.evidence.connections import unexpected_connections
from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken,
    broken_if,
    count_noun,
    first_broken,
    holds,
    not_applicable,
    not_looked_at,
)
from pipeline.policy.evidence.relay_hops import next_hops, provider_among
from pipeline.settings import SettingsError

OWN_SERVERS = ("database", "broker", "relay")


def _own_servers(live: LiveSystem) -> Finding:
    """Database, broker and relay are on this machine or on a private network, not on public addresses."""
    hops = [hop for hop in egress.outbound_routes(live.settings) if hop.name in OWN_SERVERS]
    wrong = [f"{hop.name} ({hop.host})" for hop in hops if not _is_own(hop)]
    here = "everything on this machine" if not hops else f"{', '.join(hop.name for hop in hops)}: own"
    return broken_if(wrong, here, f"not on a private address: {', '.join(wrong)}")


def _connections(live: LiveSystem) -> Finding:
    """No running process is connected to a host that the settings do not name."""
    if not live.connections:
        return not_applicable("no role runs on this machine now")
    found = [each for made in live.connections.values() for each in made]
    wrong = unexpected_connections(found, live.settings)
    figure = f"{count_noun(len(live.connections), 'process', 'processes')}, {count_noun(len(found), 'connection')}, 0 to others"
    return broken_if(wrong, figure, f"connected to {', '.join(f'{each.address}:{each.port}' for each in wrong)}")


def allowed_hosts(live: LiveSystem) -> Finding:
    """Every host that may be contacted, and every host that is connected now, belongs to PayPal or the vendor."""
    return first_broken(_allowed(live), _own_servers(live), _connections(live))


def _allowed(live: LiveSystem) -> Finding:
    hops = egress.outbound_routes(live.settings)
    wrong = [
        f"{hop.name} ({hop.host})"
        for hop in hops
        if not (_is_paypals(hop) or _is_own(hop) or live.is_own_host(hop.host))
    ]
    figure = f"{count_noun(len(hops), 'host')}: PayPal and own servers"
    return broken_if(wrong, figure, f"a third party may be contacted: {', '.join(wrong)}")


def paypal(live: LiveSystem) -> Finding:
    """The configured API belongs to PayPal."""
    try:
        egress.require_paypal_api(live.settings.paypal_base_url)
    except SettingsError as error:
        return broken(str(error))
    host = live.settings.paypal_base_url.partition("://")[2]
    return holds(f"{host}{'' if live.settings.has_paypal_credentials else ', not called: no credentials'}")


def relay(live: LiveSystem) -> Finding:
    """The relay is on this machine or on a private network, and hands mail to the recipients' servers, not to a provider."""
    hop = next((hop for hop in egress.outbound_routes(live.settings) if hop.name == "relay"), None)
    if hop is None:
        return not_applicable("no mail is sent: SMT_SMTP_URL is not set")
    if not _is_own(hop):
        return broken(f"{hop.host} is not on a private address; use a relay of your own in SMT_SMTP_URL")
    if live.settings.relay_log is None:
        return not_looked_at(f"{hop.host}:{hop.port} is own; to whom it hands mail is in its log: set SMT_RELAY_LOG")
    hops = next_hops(live.settings.relay_log)
    if provider := provider_among(hops):
        return broken(f"the relay hands mail to {provider}, a third-party provider")
    domains = {each.domain for each in hops}
    return holds(
        f"{hop.host}:{hop.port}; its log names {count_noun(len(domains), 'domain')}, each with its own servers"
    )


def _is_paypals(hop: egress.OutboundRoute) -> bool:
    return hop.host in egress.PAYPAL


def _is_own(hop: egress.OutboundRoute) -> bool:
    if not hop.host or is_on_this_machine(hop.host):
        return True
    addresses = egress.resolve(hop.host)
    return bool(addresses) and all(_is_private(address) for address in addresses)


def _is_private(address: IPv4Address | IPv6Address) -> bool:
    return address.is_private or address.is_loopback

"""Which addresses the server may send notifications to: none of its own networks."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Text that every parser of URLs reads alike.
VISIBLE: Final = re.compile(r"[!#-;=?-\[\]_a-z~&%]+", re.ASCII | re.IGNORECASE)
HOST_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
PORTS: Final = {"https": 443, "http": 80}

# Beside what the registries call not global: metadata services with addresses that look public,
# and ranges that translate to IPv4 addresses of any kind.
ALSO_REFUSED: Final = tuple(
    map(
        ip_network,
        ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "64:ff9b::/96", "64:ff9b:1::/48"),
    )
) + tuple(map(ip_network, ("2002::/16", "2001::/23", "::/96", "fec0::/10", "3fff::/20")))


class TargetRefused(ValueError):  # noqa: N818 - the word of the contract
    """A target that may not be sent to; `rule` names why."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        super().__init__(f"the target is refused: {rule}")


class Target(NamedTuple):
    """A URL in its parts; host without brackets, path with its query."""

    scheme: str
    host: str
    port: int
    path: str


def parse_target(url: str, allow_http: bool) -> Target:
    """The parts of a bridge's URL; raises TargetRefused."""
    if not VISIBLE.fullmatch(url):
        raise TargetRefused("characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise TargetRefused("form") from None
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        raise TargetRefused("scheme")
    if "@" in parts.netloc:
        raise TargetRefused("user_info")
    if "#" in url:
        raise TargetRefused("fragment")
    host = parts.hostname or ""
    if port == 0 or not (HOST_NAME.fullmatch(host) or _literal(host)):
        raise TargetRefused("host")
    query = f"?{parts.query}" if parts.query else ""
    return Target(parts.scheme, host, port or PORTS[parts.scheme], (parts.path or "/") + query)


def may_reach(address: Address, allowed: Iterable[Network]) -> bool:
    """Whether a connection to this address may be made."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    real: Address = mapped or address
    # Networks of the other version contain nothing.
    if any(real in network or address in network for network in allowed):
        return True
    if not real.is_global or real.is_multicast or real.is_reserved:
        return False
    return not any(real in network for network in ALSO_REFUSED)


def _literal(host: str) -> bool:
    try:
        return "%" not in host and bool(ip_address(host))
    except ValueError:
        return False

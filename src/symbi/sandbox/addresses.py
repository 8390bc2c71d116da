"""Which addresses a granted name may have: those of other people's machines on the public network, and nothing else.

Pure. An address is judged in its one spelling; a text that another reader could take for an address in another base, or
with fewer parts, is no host name either (`egress.parse_host`). What carries an IPv4 address in an IPv6 one is refused as
a whole, whatever it carries: mapped, compatible, translated (NAT64), 6to4, Teredo, ISATAP. The table is our own, after
the registries of special addresses (RFC 6890 and its successors), as Python's changes with its release.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_V4: Final[tuple[tuple[str, str], ...]] = (
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.100.100.200/32", "metadata"),  # in the network below
    ("100.64.0.0/10", "shared by a carrier"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "metadata"),  # Azure's, in public space
    ("169.254.0.0/16", "link-local"),  # and 169.254.169.254, the metadata address of most
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "special"),  # and 192.0.0.192, a metadata address
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "special"),
    ("192.52.193.0/24", "special"),
    ("192.88.99.0/24", "6to4"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "special"),
    ("198.18.0.0/15", "benchmarks"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),  # broadcast among it
)
_V6: Final[tuple[tuple[str, str], ...]] = (
    ("::/128", "this network"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4 in IPv6"),
    ("::/96", "IPv4 in IPv6"),
    ("64:ff9b::/96", "IPv4 in IPv6"),
    ("64:ff9b:1::/48", "IPv4 in IPv6"),
    ("2001::/32", "IPv4 in IPv6"),  # Teredo
    ("2002::/16", "IPv4 in IPv6"),  # 6to4
    ("2001::/23", "special"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("2620:4f:8000::/48", "special"),
    ("fd00:ec2::254/128", "metadata"),  # in the network below, like the next
    ("fd20:ce::254/128", "metadata"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")  # what the registries give out; all else is reserved
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})  # the upper half of the interface id (RFC 5214, section 6.1)
_V4_NETWORKS: Final = tuple((IPv4Network(text), why) for text, why in _V4)
_V6_NETWORKS: Final = tuple((IPv6Network(text), why) for text, why in _V6)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address in its one spelling; None for what is none, and for other spellings of one.

    So `127.1`, `0x7f.0.0.1`, `2130706433` and `0177.0.0.1` are none, and an IPv6 address has no zone.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if str(address) == text else None


def why_not_public(address: str) -> str:
    """Why nothing in a sandbox may be connected with an address; empty where it may.

    Args:
        address: As a resolver gives it.
    """
    found = parse_address(address)
    if found is None:
        return "no address"
    if isinstance(found, IPv4Address):
        return next((why for network, why in _V4_NETWORKS if found in network), "")
    for network, why in _V6_NETWORKS:
        if found in network:
            return why
    if found not in _GLOBAL_V6:
        return "reserved"
    return "IPv4 in IPv6" if int(found) >> 32 & 0xFFFF_FFFF in _ISATAP else ""

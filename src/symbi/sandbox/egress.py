"""What of the network a sandbox is granted: hosts by name and port, methods, bytes, and the credentials put in for it.

Pure. A grant is a list of endpoints, `[METHODS ]host:port`:

- `api.example.com:443`: tunnels (`CONNECT`) and forward requests of any method,
- `GET,HEAD api.example.com:443`: forward requests of these methods alone, as nobody sees the methods in a tunnel.

There are no wildcards. A name that is not known when the grant is made cannot be pinned to its addresses then; it would
be looked up for whoever is in the sandbox, and each look-up carries up to 253 characters out of it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from symbi.errors import InputError
from symbi.sandbox.addresses import parse_address, why_not_public

METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
"""What a forward request may be. `TRACE` is none of them: it would give back what was put in."""
TLS_PORT: Final = 443
HTTP_PORT: Final = 80
MAX_ENDPOINTS: Final = 32
BYTES_PER_MIBIT: Final = 131_072
MAX_HOST_CHARS: Final = 253  # RFC 1035, section 2.3.4
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_NEVER: Final = frozenset({"alt", "arpa", "internal", "invalid", "local", "localhost", "onion"})
"""Top-level names of no public machine (RFC 6761, 6762, 7686, 9476; `internal` is reserved by ICANN)."""
_CREDENTIAL: Final = re.compile(
    r"(?P<host>[^ ]+)(?: (?P<header>[A-Za-z][A-Za-z0-9-]{0,63})(?: (?P<scheme>[A-Za-z][A-Za-z0-9-]{0,31}))?)?"
)
_PATH: Final = re.compile(r"[A-Za-z0-9_./-]{1,256}")
_NO_CREDENTIAL: Final = frozenset({
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "date", "expect", "host",
    "if-range", "keep-alive", "range", "te", "trailer", "transfer-encoding", "upgrade", "via",
})  # fmt: skip
"""Headers that say how a message is read; none of them is a place for a secret."""


class Endpoint(NamedTuple):
    """Where a sandbox may connect to.

    Attributes:
        host: Lower-case ASCII name, or an address in its one spelling (IPv6 without brackets).
        port: 1 to 65535.
        methods: Of forward requests; empty for all, and for tunnels.
    """

    host: str
    port: int
    methods: frozenset[str] = frozenset()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        methods = ",".join(sorted(self.methods))
        return f"{methods} {host}:{self.port}".lstrip()


class Credential(NamedTuple):
    """What is put into the forward requests to one host.

    Attributes:
        host: Of an endpoint.
        header: Its name, lower-case.
        prefix: What stands before the secret, with its space.
        path: Of the secret, as in `vault://path`.
    """

    host: str
    header: str
    prefix: str
    path: str


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What one sandbox may use of its grant.

    Attributes:
        at_once: Connections at a time.
        connections: Connections in all, those that are refused among them.
        sent_bytes, received_bytes: In all, by the sandbox and to it, headers and bodies of requests and all of tunnels.
        bytes_per_s: Shaped to this, both directions together; after a burst of one second's worth.
        head_bytes: The head of a request, and that of a response.
        head_s: Until a request's head is complete.
        dial_s: Until a connection to the outside stands, TLS included; over all addresses of a name.
        idle_s: Without a byte in either direction.
        masked_bytes: An answer of a host with a credential, which is looked through as a whole before it is passed on.
    """

    at_once: int = 8
    connections: int = 256
    sent_bytes: int = 16_777_216
    received_bytes: int = 67_108_864
    bytes_per_s: int = 8_388_608
    head_bytes: int = 16_384
    head_s: float = 10.0
    dial_s: float = 10.0
    idle_s: float = 30.0
    masked_bytes: int = 4_194_304

    def claimed(self, mibitps: int) -> "EgressLimits":
        """These limits for one that claims so many mebibits a second: the least of both rates; 0 claims none."""
        return replace(self, bytes_per_s=min(self.bytes_per_s, mibitps * BYTES_PER_MIBIT)) if mibitps else self


@dataclass(frozen=True, slots=True)
class EgressGrant:
    """What one sandbox may reach.

    Attributes:
        endpoints: In the order in which they were given.
        credentials: By host.
    """

    endpoints: tuple[Endpoint, ...] = ()
    credentials: Mapping[str, Credential] = field(default_factory=dict)

    def at(self, host: str, port: int) -> Endpoint | None:
        """The endpoint of exactly this name and port."""
        return next((one for one in self.endpoints if (one.host, one.port) == (host, port)), None)

    def knows(self, host: str) -> bool:
        """Whether any port of a host is granted."""
        return any(one.host == host for one in self.endpoints)

    @property
    def hosts(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(one.host for one in self.endpoints))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The paths of the secrets, sorted."""
        return tuple(sorted({one.path for one in self.credentials.values()}))


class Bucket:
    """A token bucket, which is told the time.

    Args:
        per_s: Tokens that come in a second.
        most: Tokens that it holds, and begins with.
        now_s: On a clock that does not go back.
    """

    __slots__ = ("_level", "_most", "_per_s", "_then_s")

    def __init__(self, per_s: float, most: float, now_s: float) -> None:
        self._per_s, self._most = per_s, most
        self._level, self._then_s = most, now_s

    def take(self, count: int, now_s: float) -> float:
        """Take tokens, also such as are not there yet, and give the seconds until they would have come."""
        self._level = min(self._most, self._level + max(0.0, now_s - self._then_s) * self._per_s) - count
        self._then_s = max(now_s, self._then_s)
        return max(0.0, -self._level / self._per_s)


def parse_host(text: str) -> str | None:
    """A host name as it is compared: ASCII, lower-case; or a public address in its one spelling. None for what is neither.

    An internationalised name is written by its A-labels (`xn--…`), so that nobody takes one letter for another. A name
    has two labels at least, and its last is no number in any base, as resolvers take such for an address.
    """
    if not text.isascii():
        return None
    name = text.lower()
    if name.startswith("[") or parse_address(name) is not None:
        address = name.removeprefix("[").removesuffix("]") if name.startswith("[") and name.endswith("]") else name
        found = parse_address(address)
        if found is None or isinstance(found, IPv6Address) is not name.startswith("["):
            return None
        return address
    labels = name.split(".")
    if len(name) > MAX_HOST_CHARS or len(labels) < 2:  # noqa: PLR2004 - a name and where it is
        return None
    if not all(_LABEL.fullmatch(label) and (label[2:4] != "--" or label.startswith("xn--")) for label in labels):
        return None
    last = labels[-1]
    return None if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) or last in _NEVER else name


def parse_authority(text: str) -> tuple[str, int] | None:
    """Host and port of `host:port`, both in their one form; None for anything else."""
    host, colon, port = text.rpartition(":")
    name = parse_host(host)
    if not colon or name is None or not _PORT.fullmatch(port) or int(port) > 65_535:  # noqa: PLR2004 - of ports
        return None
    return name, int(port)


def parse_endpoint(text: str) -> Endpoint:
    """An endpoint of a grant.

    Raises:
        InputError: It is none; the hint says what one is.
    """
    methods, space, authority = text.rpartition(" ")
    found = parse_authority(authority)
    if found is None:
        msg = f"`{text[:300]}` is no `host:port`"
        hint = _why_no_host(authority)
        raise InputError(msg, code="egress.endpoint", hint=hint)
    listed = methods.split(",") if space else []
    unknown = next((one for one in listed if one not in METHODS), None)
    if unknown is not None or len(set(listed)) < len(listed):
        msg = f"`{text[:300]}` does not begin with methods"
        raise InputError(msg, code="egress.endpoint", hint=f"there are {', '.join(METHODS)}, each once, between commas")
    why = why_not_public(found[0]) if parse_address(found[0]) is not None else ""
    if why:
        msg = f"`{found[0]}` is no public address: {why}"
        raise InputError(msg, code="egress.address", hint="a sandbox reaches nothing of this machine or its networks")
    return Endpoint(*found, frozenset(listed))


def parse_credential(where: str, path: str) -> Credential:
    """A credential: which secret goes where.

    Args:
        where: `api.example.com` (as `Authorization: Bearer …`), `api.example.com X-Api-Key`, or with what stands before the
            secret, `api.example.com Authorization Token`.
        path: Of the secret, as in `vault://path`.

    Raises:
        InputError: It is none.
    """
    found = _CREDENTIAL.fullmatch(where)
    host = parse_host(found["host"]) if found else None
    header = ((found["header"] if found else None) or "authorization").lower()
    if found is None or host is None or header in _NO_CREDENTIAL or header.startswith("proxy-"):
        msg = f"`{where[:300]}` is no place for a credential"
        raise InputError(msg, code="egress.credential", hint="write `api.example.com`, or `api.example.com X-Api-Key`")
    if not _PATH.fullmatch(path):  # what stands there may be a secret itself, and is not said
        msg = f"the credential of `{host}` is no reference to a secret"
        raise InputError(msg, code="egress.credential", hint="write `vault://path`, never the secret itself")
    prefix = f"{found['scheme']} " if found["scheme"] else "" if found["header"] else "Bearer "
    return Credential(host, header, prefix, path)


def parse_grant(network: Iterable[str], credentials: Mapping[str, str]) -> EgressGrant:
    """A grant out of what was asked for.

    Args:
        network: Endpoints.
        credentials: Paths of secrets, by where they go.

    Raises:
        InputError: Something is malformed, granted in two ways, too much, or of a host that is not in it.
    """
    endpoints = tuple(dict.fromkeys(parse_endpoint(text) for text in network))
    places = [(one.host, one.port) for one in endpoints]
    twice = next((one for one in endpoints if places.count((one.host, one.port)) > 1), None)
    if twice is not None:
        raise InputError(f"`{twice.host}:{twice.port}` is granted in two ways", code="egress.endpoint")
    if len(endpoints) > MAX_ENDPOINTS:
        raise InputError(f"a sandbox may be granted {MAX_ENDPOINTS} endpoints", code="egress.endpoint")
    grant = EgressGrant(endpoints, {})
    made: dict[str, Credential] = {}
    for where, path in credentials.items():
        one = parse_credential(where, path)
        if not grant.knows(one.host):
            msg = f"there is a credential for `{one.host}`, which is not in the network that is asked for"
            raise InputError(msg, code="egress.credential")
        if one.host in made:
            raise InputError(f"there are two credentials for `{one.host}`", code="egress.credential")
        made[one.host] = one
    return EgressGrant(endpoints, made)


def _why_no_host(authority: str) -> str:
    host, _, port = authority.rpartition(":")
    if "*" in authority:
        return "there are no wildcards: name each host, so that it can be pinned to its addresses"
    if not authority.isascii():
        return "write an internationalised name by its A-labels: `xn--…`"
    if not host or not _PORT.fullmatch(port):
        return "write it like `api.example.com:443`"
    return "the host is a name with a public end, or a public address in its usual spelling"

"""Heads of HTTP/1.1 requests to the proxy of a sandbox, read strictly, and what a grant says to them.

Pure. What two readers could read in two ways is refused, and is not mended: bare line feeds, folded lines, white space
around names, two lengths, a length beside chunks, a `Host` that is not the target's. The proxy writes a head of its own
from what was read here, so that no byte of a sandbox's head reaches anybody as it was sent.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from symbi.sandbox.egress import HTTP_PORT, METHODS, TLS_PORT, Credential, EgressGrant, Endpoint, parse_authority

MAX_HEADERS: Final = 100
MAX_TARGET_BYTES: Final = 8_192
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.([01])")
_HEADER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,14}")
_TOKENS: Final = re.compile(rb"[ \t]*,[ \t]*")
_ONCE: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"connection"})
_FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
HOP_BY_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"http2-settings",
})  # fmt: skip
"""Headers of one connection, which are never passed on (RFC 9110, section 7.6.1)."""


class Refusal(NamedTuple):
    """Why something is refused.

    Attributes:
        rule: `egress.…`: all that the sandbox is told.
        status: Of the answer.
    """

    rule: str
    status: int = 403


MALFORMED: Final = Refusal("egress.malformed", 400)
TOO_LARGE: Final = Refusal("egress.head", 431)


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head.

    Attributes:
        method: Upper-case.
        host, port: Of the target; the port is None where the target names none.
        path: With its query; empty for a tunnel.
        headers: Lower-case names; those of the connection, the host and the framing are not among them.
        length: Of the body; None where it comes in chunks.
        expects: It waits for a word before it sends its body.
        old: It is HTTP/1.0, which knows no chunks.
    """

    method: str
    host: str
    port: int | None
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    length: int | None = 0
    expects: bool = False
    old: bool = False

    @property
    def authority(self) -> str:
        """Host and port as they were named."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        endpoint: Of the grant.
        tunnel: Bytes are passed on as they are.
        tls: We speak TLS with the other end.
        credential: What is put in.
    """

    endpoint: Endpoint
    tunnel: bool
    tls: bool = False
    credential: Credential | None = None


def read_head(raw: bytes) -> Head | Refusal:
    """Read the head of a request.

    Args:
        raw: All of it, with the empty line at its end.
    """
    lines = raw.split(b"\r\n")
    if lines[-2:] != [b"", b""]:
        return MALFORMED
    first = _REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        return MALFORMED
    if len(first[2]) > MAX_TARGET_BYTES or len(lines) - 3 > MAX_HEADERS:
        return TOO_LARGE
    found: list[tuple[bytes, bytes]] = []
    for line in lines[1:-2]:
        header = _HEADER.fullmatch(line)
        if header is None:
            return MALFORMED
        found.append((header[1].lower(), header[2]))
    names = [name for name, _ in found]
    if any(names.count(name) > 1 for name in _ONCE):
        return MALFORMED
    return _understood(first[1].decode(), first[2].decode(), first[3], found)


def _understood(method: str, target: str, minor: bytes, found: list[tuple[bytes, bytes]]) -> Head | Refusal:
    known = dict(found)
    length = _length(known, minor)
    named = _TOKENS.split(known.get(b"connection", b"").lower())
    expects = known.get(b"expect", b"").lower()
    if isinstance(length, Refusal) or not _FRAMING.isdisjoint(named) or expects not in {b"", b"100-continue"}:
        return MALFORMED
    tunnel = method == "CONNECT"
    place = parse_authority(target) if tunnel else _absolute(target)
    if place is None or (tunnel and length != 0):
        return MALFORMED
    host, port = place[0], place[1]
    path = "" if tunnel else str(place[2]) if len(place) > 2 else "/"  # noqa: PLR2004 - the path, of an absolute target
    head = Head(method, host, port, path, _passed_on(found, named), length, bool(expects), minor == b"0")
    said = known.get(b"host")
    if said is None:
        return head if tunnel or minor == b"0" else MALFORMED
    default = TLS_PORT if tunnel else HTTP_PORT
    there = said.decode("latin-1").lower()
    same = {head.authority, f"{head.authority}:{default}"} if port is None else {head.authority}
    if port == default or tunnel:  # curl names the port of a tunnel or leaves it out
        same.add(head.authority.rpartition(":")[0])
    return head if there in same else MALFORMED


def _length(known: dict[bytes, bytes], minor: bytes) -> int | Refusal | None:
    coding, length = known.get(b"transfer-encoding"), known.get(b"content-length")
    if coding is not None:
        return None if length is None and minor == b"1" and coding.lower() == b"chunked" else MALFORMED
    if length is None:
        return 0
    return int(length) if _LENGTH.fullmatch(length) else MALFORMED


def _absolute(target: str) -> tuple[str, int | None, str] | None:
    """Host, port and path of `http://host[:port]/path`, and of nothing else."""
    scheme, separator, rest = target.partition("://")
    if scheme.lower() != "http" or not separator or "#" in rest:
        return None
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    if not path.startswith("/"):
        path = "/" + path
    found = parse_authority(authority)
    if found is not None:
        return found[0], found[1], path
    bare = parse_authority(f"{authority}:{HTTP_PORT}")
    return None if bare is None else (bare[0], None, path)


def _passed_on(found: list[tuple[bytes, bytes]], named: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    gone = HOP_BY_HOP | _FRAMING | {b"expect", *named}
    return tuple((name, value) for name, value in found if name not in gone and not name.startswith(b"proxy-"))


def judge(grant: EgressGrant, head: Head) -> Route | Refusal:
    """Where a request goes, or why nowhere.

    A forward request that names no port is for port 80 where that is granted, else for port 443. The proxy speaks TLS with
    port 443, and with each host that has a credential, whatever its port: no secret goes out in the clear. What is in a
    tunnel cannot be seen, so there is none to a host with a credential or with methods.
    """
    if not grant.knows(head.host):
        return Refusal("egress.host")
    credential = grant.credentials.get(head.host)
    if head.method == "CONNECT":
        endpoint = grant.at(head.host, head.port or 0)
        if endpoint is None:
            return Refusal("egress.port")
        closed = credential is not None or endpoint.methods
        return Refusal("egress.tunnel") if closed else Route(endpoint, tunnel=True)
    ports = (HTTP_PORT, TLS_PORT) if head.port is None else (head.port,)
    endpoint = next((one for port in ports if (one := grant.at(head.host, port)) is not None), None)
    if endpoint is None:
        return Refusal("egress.port")
    if head.method not in (endpoint.methods or METHODS):
        return Refusal("egress.method")
    tls = endpoint.port == TLS_PORT or credential is not None
    return Route(endpoint, tunnel=False, tls=tls, credential=credential)

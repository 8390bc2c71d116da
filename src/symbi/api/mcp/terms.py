"""What the door of the gateway asks of a request before it looks at who sent it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

MAX_HEADER_BYTES: Final = 16_384  # of one request
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class DoorTerms:
    """Where the gateway listens, and its bounds.

    Attributes:
        host: Address to listen on.
        port: 0 takes a free one.
        hosts: Further names by which requests may call it, without a port.
        origins: Pages whose scripts may ask, e.g. `https://chat.example.org`.
        tls_cert: PEM file of the certificate chain; None for plain HTTP.
        tls_key: PEM file of its key.
        max_connections: At a time.
        max_sessions: Of one client at a time.
        max_requests: Of one client at a time, streams among them.
        max_body_bytes: Of one request.
        header_s: How long the headers of a request may take.
        body_s: How long its body may take.
        idle_s: After which a session without requests ends.
        grace_s: How long calls at work may go on at shutdown.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_connections: int = 512
    max_sessions: int = 32
    max_requests: int = 128
    max_body_bytes: int = 4_194_304
    header_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 1_800.0
    grace_s: float = 10.0

    def knows_host(self, host: str) -> bool:
        """Whether a `Host` is ours. A name that somebody else's DNS points at us is not."""
        name = _host_name(host)
        own = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return name is not None and (name in LOOPBACK or name == own.lower() or name in _lower(self.hosts))

    def knows_origin(self, origin: str, host: str) -> bool:
        """Whether a page may ask: one that is configured, or one of this machine's own at the same address and port."""
        if origin.lower() in _lower(self.origins):
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        same = parts.scheme in {"http", "https"} and not parts.path and parts.netloc.lower() == host.lower()
        return same and _host_name(host) in LOOPBACK


def _host_name(host: str) -> str | None:
    """The name in a `Host`, in small letters; None where it is none."""
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name = host
    elif not port.isascii() or not port.isdigit():
        return None
    return name.lower() or None


def _lower(texts: Iterable[str]) -> set[str]:
    return {text.lower().rstrip("/") for text in texts}

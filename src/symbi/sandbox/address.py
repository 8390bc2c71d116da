"""Where a container engine is, and how it is spoken to: as the `docker` client knows it, from settings or the environment.

Who may use an engine is root on its machine. So one that is not on this machine is spoken to under TLS, with certificates
that are checked on both sides, unless the configuration says outright that it shall not be.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from symbi.errors import ConfigError

DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
PLAIN_PORT: Final = 2375
TLS_PORT: Final = 2376
CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.pem", "cert.pem", "key.pem"


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """One engine.

    Attributes:
        url: `unix:///path` or `tcp://host:port`.
        certificates: The folder of `ca.pem`, `cert.pem` and `key.pem`, where it is spoken to under TLS; None elsewhere.
    """

    url: str
    certificates: Path | None = None

    @property
    def port(self) -> int:
        """Where it listens, if that is not a socket's file."""
        return urlsplit(self.url).port or (PLAIN_PORT if self.certificates is None else TLS_PORT)

    def context(self) -> ssl.SSLContext | None:
        """How it is spoken to under TLS; None where it is not. Its certificate is always checked, and so is the name in it.

        Raises:
            ConfigError: The certificates cannot be read, or are none.
        """
        if self.certificates is None:
            return None
        ca, certificate, key = (self.certificates / name for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE))
        try:
            context = ssl.create_default_context(cafile=ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate, key, password=_no_password)
        except _EncryptedKeyError:
            msg = f"the certificates of the engine in `{self.certificates}` cannot be used: {KEY_FILE} is encrypted"
            hint = f"write it there without a password, readable by this account alone: `openssl pkey -in {KEY_FILE} -out …`"
            raise ConfigError(msg, code="config.engine_certificates", hint=hint) from None
        except (OSError, ValueError) as error:  # an error of ssl is one of the system's
            lacking = [path.name for path in (ca, certificate, key) if not path.is_file()]
            why = f"{', '.join(lacking)} is not there" if lacking else f"{type(error).__name__}: {error}"
            msg = f"the certificates of the engine in `{self.certificates}` cannot be used: {why}"
            hint = f"put {CA_FILE}, {CERTIFICATE_FILE} and {KEY_FILE} there, or name their folder in `sandbox.docker_cert_path`"
            raise ConfigError(msg, code="config.engine_certificates", hint=hint) from None
        return context


def engine_address(
    url: str | None,
    environ: Mapping[str, str],
    *,
    tls_verify: bool | None = None,
    certificates: Path | None = None,
    plain: bool = False,
) -> EngineAddress:
    """The engine of a configuration; what it leaves out, the environment says.

    Args:
        url: Its address; None for `DOCKER_HOST`, or else the usual socket.
        environ: Environment variables.
        tls_verify: Whether it is spoken to under TLS; None for `DOCKER_TLS_VERIFY`, which says so by any text.
        certificates: The folder of the certificates; None for `DOCKER_CERT_PATH`, or else `.docker` of the account.
        plain: One that is not on this machine may be spoken to without TLS.

    Raises:
        ConfigError: It is not on this machine, and would be spoken to without TLS; or certificates are configured for one
            that would be.
    """
    found = url or environ.get("DOCKER_HOST", "").strip() or DEFAULT_HOST
    try:
        parts = urlsplit(found)
        parts.port  # noqa: B018 - it says what is wrong with it
    except ValueError as error:
        msg = f"`{found}` is no address of an engine: {error}"
        raise ConfigError(msg, code="config.value", hint="write `unix:///path` or `tcp://host:port`") from None
    if parts.scheme not in {"tcp", "http", "https"}:
        return EngineAddress(found)
    under_tls = bool(environ.get("DOCKER_TLS_VERIFY", "").strip()) if tls_verify is None else tls_verify
    if under_tls or parts.scheme == "https":
        return EngineAddress(found, certificates or _usual_folder(environ))
    if certificates is not None:
        msg = f"the certificates in `{certificates}` are configured for an engine that would be spoken to without TLS"
        hint = (
            "set `sandbox.docker_tls_verify = true` (or DOCKER_TLS_VERIFY=1), or leave `sandbox.docker_cert_path` out"
        )
        raise ConfigError(msg, code="config.engine_certificates", hint=hint)
    if not plain and not _is_here(parts):
        msg = "an engine on another machine would be spoken to without TLS: who listens or answers in its place is root there"
        hint = "set `sandbox.docker_tls_verify = true` (or DOCKER_TLS_VERIFY=1); `sandbox.docker_plain_tcp = true` permits it as it is"
        raise ConfigError(msg, code="config.unsafe", hint=hint)
    return EngineAddress(found)


class _EncryptedKeyError(Exception):
    """The key is under a password, and nobody is there to say it."""


def _no_password() -> str:
    """Asked for the password of a key, where OpenSSL would ask at the terminal and wait."""
    raise _EncryptedKeyError


def _usual_folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("DOCKER_CERT_PATH", "").strip() or environ.get("DOCKER_CONFIG", "").strip()
    return Path(named) if named else Path(environ.get("HOME") or "/") / ".docker"


def _is_here(parts: SplitResult) -> bool:
    """Whether an address is one of this machine's own, that nobody else is reached by."""
    host = parts.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""The gateway behind its door: what the configuration says of both, put together."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp.server.lowlevel import Server

from symbi.api.mcp.clients import client_of
from symbi.api.mcp.gateway import Gateway
from symbi.api.mcp.http import CLOSE_S, HttpGateway, Place
from symbi.api.mcp.http_sessions import serving
from symbi.api.mcp.terms import DoorTerms
from symbi.api.mcp.tokens import ClientBook
from symbi.config import Settings
from symbi.errors import ConfigError


def door_terms(settings: Settings) -> DoorTerms:
    """The terms that a configuration sets.

    Raises:
        ConfigError: There is a certificate without a key, or the other way round.
    """
    gateway = settings.gateway
    if (gateway.tls_cert is None) is not (gateway.tls_key is None):
        key = "gateway.tls_cert" if gateway.tls_key is None else "gateway.tls_key"
        msg = f"`{key}` is set alone"
        raise ConfigError(
            msg, code="config.tls", place=settings.origin(key).place, hint="certificate and key go together"
        )
    return DoorTerms(
        host=gateway.host,
        port=gateway.port,
        hosts=gateway.hosts,
        origins=gateway.origins,
        tls_cert=gateway.tls_cert,
        tls_key=gateway.tls_key,
        max_connections=gateway.max_connections,
        max_sessions=min(gateway.max_sessions, gateway.max_client_sessions),
        max_requests=gateway.max_requests,
        max_body_bytes=gateway.max_body_bytes,
        header_s=gateway.header_timeout_s,
        body_s=gateway.body_timeout_s,
        idle_s=gateway.session_idle_s,
        grace_s=max(0.0, settings.runtime.shutdown_grace_s - CLOSE_S),
    )


def http_gateway(gateway: Gateway, settings: Settings, place: Place | None = None) -> HttpGateway:
    """The gateway behind its door.

    Args:
        gateway: Serves, while it is open.
        settings: Where, which clients there are, and bounds.
        place: Where, if it is open already.

    Raises:
        ConfigError: As `door_terms`.
    """
    terms = door_terms(settings)

    def server_of(name: str) -> AbstractAsyncContextManager[Server[Any]]:
        return serving(gateway, client_of(settings, name), terms.idle_s)

    return HttpGateway(terms, ClientBook(settings.runtime.data_dir), server_of, place)

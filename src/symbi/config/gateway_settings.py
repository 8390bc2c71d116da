# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""What is said of the MCP gateway, and of each client that uses it."""

from dataclasses import dataclass
from enum import StrEnum

from symbi.config.agent_settings import Trust
from symbi.config.declared import declare as _declare
from symbi.config.door_settings import DoorSettings
from symbi.config.kinds import Flag, OneOf, Real, Several, Text, Whole


class GatewayNames(StrEnum):
    """How the tools and prompts of servers are called outside."""

    PREFIXED = "prefixed"
    """`server__tool`."""
    PLAIN = "plain"
    """As their server calls them; what two servers call the same is not served."""


@dataclass(frozen=True, slots=True)
class GatewaySettings(DoorSettings):
    """`[gateway]`: `symbi mcp`, which serves tools and agents to MCP clients."""

    names: GatewayNames = _declare(
        GatewayNames.PREFIXED, OneOf(GatewayNames), "how tools and prompts of servers are called outside"
    )
    wait_s: float = _declare(
        20.0, Real(0, 3600, "seconds"), "how long a held call waits for people before it answers that it is held"
    )
    listing_s: float = _declare(
        10.0,
        Real(0.05, 3600, "seconds"),
        "how long a listing waits for a server; what comes later is told of as a change",
    )
    max_sessions: int = _declare(64, Whole(1, 10_000, "sessions"), "sessions of clients at a time; more are refused")
    max_client_sessions: int = _declare(
        32, Whole(1, 10_000, "sessions"), "sessions of one client at a time, so that none can take all there are"
    )
    max_calls: int = _declare(
        16, Whole(1, 1000, "calls"), "requests of one session that are carried out at a time; more are refused"
    )
    calls_rate: float = _declare(
        50.0, Real(0.01, 100_000, "requests a second"), "requests of one client in a second; more are refused"
    )
    max_request_kib: int = _declare(1024, Whole(1, 65_536, "KiB"), "arguments of one request; larger ones are refused")
    remembered_kib: int = _declare(
        2048, Whole(1, 65_536, "KiB"), "text of answers that is held against later calls; beyond it all counts as read"
    )


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """`[mcp.clients.NAME]`: what a client of the gateway is to policies: the agent `mcp.NAME` in the group `mcp.clients`."""

    name: str
    owner: str = _declare("unknown", Text(), "person or account that answers for it")
    groups: tuple[str, ...] = _declare((), Several(Text()), "further groups that policies may name")
    trust: Trust = _declare(Trust.STANDARD, OneOf(Trust), "how far policies may trust it")
    capabilities: tuple[str, ...] = _declare(
        (), Several(Text()), "capabilities that policies may ask for, as an agent file lists them"
    )
    servers: tuple[str, ...] | None = _declare(
        None, Several(Text()), "tool servers that it sees", unset="all that are configured"
    )
    approves_as: str | None = _declare(
        None,
        Text("the name of a person of `[approvals.people]`"),
        "the person who sits at it and is asked there about held calls; over its standard streams alone",
        unset="nobody: held calls wait in the queue",
    )
    labels: bool = _declare(
        default=False,
        kind=Flag(),
        meaning="whether it may say in `_meta` what its user wrote and where arguments come from",
    )

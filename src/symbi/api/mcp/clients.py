"""Who uses the gateway: a client is a principal of its own, as the configuration says, never as it says of itself."""

from dataclasses import dataclass
from typing import Final

from symbi.config import ClientSettings, Settings
from symbi.errors import ConfigError, InputError
from symbi.types import AgentId, Principal

LOCAL: Final = "local"
"""The client of the standard streams, where nobody names another."""
GROUP: Final = "mcp.clients"
"""The group of every client."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the gateway.

    Attributes:
        name: As configured.
        principal: On whose behalf its calls are decided: the agent `mcp.NAME`.
        servers: The tool servers that it sees; all of them if None.
        approves_as: The registered person who is asked at the client about held calls; empty for nobody.
        labels: It may say what its user wrote, and where arguments come from.
    """

    name: str
    principal: Principal
    servers: frozenset[str] | None = None
    approves_as: str = ""
    labels: bool = False


def agent_of(name: str) -> AgentId:
    """The agent that a client is to policies. No agent file can declare one of that name, for it has a point."""
    return AgentId(f"mcp.{name}")


def client_of(settings: Settings, name: str) -> Client:
    """A client as `[mcp.clients.NAME]` has it; `local` needs no table.

    Raises:
        InputError: There is none of that name.
        ConfigError: It is to see a server, or to act for a person, that is not configured.
    """
    known = settings.of_client(name)
    if known is None:
        if name != LOCAL:
            msg = f"there is no client `{name[:64]}`"
            raise InputError(msg, code="mcp.client", hint=f"write [mcp.clients.{name[:64]}] into the configuration")
        known = ClientSettings(LOCAL)
    _check(settings, known)
    groups = (GROUP, *(group for group in known.groups if group != GROUP))
    principal = Principal(
        agent_of(name), known.owner, groups, known.trust.value, capabilities=tuple(sorted(set(known.capabilities)))
    )
    servers = None if known.servers is None else frozenset(known.servers)
    return Client(name, principal, servers, known.approves_as or "", known.labels)


def _check(settings: Settings, known: ClientSettings) -> None:
    names = {server.name for server in settings.mcp.servers}
    for server in known.servers or ():
        if server not in names:
            place = settings.origin(f"mcp.clients.{known.name}.servers").place
            msg = f"`mcp.clients.{known.name}.servers` names `{server}`, and there is no such tool server"
            raise ConfigError(msg, code="config.client", place=place)
    people = {person.name for person in settings.approvals.people}
    if known.approves_as is not None and people and known.approves_as not in people:
        place = settings.origin(f"mcp.clients.{known.name}.approves_as").place
        msg = f"`mcp.clients.{known.name}.approves_as` is `{known.approves_as}`, and no such person is registered"
        raise ConfigError(msg, code="config.client", place=place, hint="[approvals.people.NAME] registers one")

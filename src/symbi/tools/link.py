"""A configured server, as the catalogue is given it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from symbi.tools.dependency import DependencyTerms
from symbi.tools.port import ResourceUpdates, ServerSession, ToolServer


def no_process() -> int | None:
    """The default of `pid`: none."""
    return None


@dataclass(frozen=True, slots=True)
class ServerLink:
    """A configured server.

    Attributes:
        name: Its name in the configuration.
        command: What is run, as one line; policies on `ConnectServer` see it.
        server: The server itself, entered by whoever owns it.
        secrets: Vault paths that its environment asks for.
        timeout_s: Seconds of one call, where the manifest does not say.
        terms: How many calls it is given at a time, and when it is left alone.
        pid: Its process, while it has one of ours.
        session: What it offers beside tools; None where it cannot be asked.
        source: The file that it was found in; empty where the configuration names it.
        digest: SHA-256 (hex) of what that file says of it.
        definition: That itself, as JSON.
        updates: What it tells of resources that change; None where it tells nothing.
    """

    name: str
    command: str
    server: ToolServer
    secrets: tuple[str, ...] = ()
    timeout_s: float = 30.0
    terms: DependencyTerms = field(default_factory=DependencyTerms)
    pid: Callable[[], int | None] = no_process
    session: ServerSession | None = None
    source: str = ""
    digest: str = ""
    definition: str = ""
    updates: ResourceUpdates | None = None

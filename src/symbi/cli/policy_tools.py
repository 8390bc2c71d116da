"""Tools as the commands of `symbi policy` know them without a running server: from pins and manifests."""

import json

from symbi.config import Settings
from symbi.guard.action import InvokeTool, ToolRef
from symbi.policy.cases import KnownTool
from symbi.tools.manifest import ToolEntry
from symbi.types import AgentId, Principal, ToolName
from symbi.wiring import known_pins, manifests


def known_refs(settings: Settings) -> dict[str, ToolRef]:
    """The pinned tools by name, each as its manifest says it is; verified where it was signed and is not quarantined.

    Raises:
        StoreUnavailable: The store is there and cannot be read.
        ConfigError, InputError: A manifest is wrong, or cannot be read.
    """
    said = manifests(settings)
    found = {}
    for pin in known_pins(settings):
        server, _, name = pin.tool.partition(".")
        entry = said[server].entry(name) if server in said else ToolEntry()
        found[pin.tool] = ToolRef(
            name=ToolName(pin.tool),
            server=server,
            schema_digest=pin.digest,
            input_schema=json.loads(pin.definition)["inputSchema"],
            verified=bool(pin.key_fingerprint) and pin.state == "pinned",
            recovery=entry.recovery,
            flow=entry.flow,
        )
    return found


def known_to_cases(settings: Settings) -> dict[str, KnownTool]:
    """The same, as cases take them.

    Raises:
        StoreUnavailable, ConfigError, InputError: As `known_refs`.
    """
    nobody = Principal(AgentId(""))
    return {
        name: KnownTool(InvokeTool(principal=nobody, tool=ref, values={}).resource, ref.flow)
        for name, ref in known_refs(settings).items()
    }

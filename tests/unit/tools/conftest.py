"""A catalogue on a simulated server, behind a real gate in memory."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from symbi.errors import InputError
from symbi.policy.catalog import ToolType
from symbi.policy.policies import PolicySet
from symbi.testing.gate import ALLOW_ALL, Gate, open_gate
from symbi.testing.tool_servers import ToolServerSimulator
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.invoke import Invoker
from symbi.tools.manifest import Manifest, ToolEntry
from symbi.tools.port import RawToolResult, ToolDefinition
from symbi.types import AgentId, Principal, RecoveryClass

AGENT = Principal(AgentId("triage"))
SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "n": {"type": "integer"}, "body": {"type": "string"}},
    "required": ["to"],
    "additionalProperties": False,
}


class Secrets:
    """A source that counts how often it is asked."""

    def __init__(self, values):
        self.values = values
        self.asked = []

    def resolve(self, permit, path):
        self.asked.append(path)
        if path not in permit.action.secrets:
            raise InputError("not named")
        return self.values.get(path)


@dataclass
class Bench:
    """All that a call goes through; `answer` is what the tool does next."""

    gate: Gate
    server: ToolServerSimulator
    verifier: ToolVerifier
    catalog: Catalog
    invoker: Invoker
    secrets: Secrets
    answer: object = None

    def prepare(self, tool="mail.send", **arguments):
        options = {name: arguments.pop(name) for name in ("labels", "secrets", "slot") if name in arguments}
        return self.invoker.prepare(AGENT, tool, arguments, **options)

    async def call(self, tool="mail.send", **arguments):
        return await self.invoker.call(self.prepare(tool, **arguments))

    def kinds(self):
        return [event.event_type for event in self.gate.events()]


@pytest.fixture
def open_bench():
    @asynccontextmanager
    async def bench(policies=ALLOW_ALL, *, mode="tofu", definitions=None, entry=None, clock=None):
        made = None

        async def answer(arguments, effect_id):
            outcome = made.answer
            if callable(outcome):
                return await outcome(arguments, effect_id)
            return outcome or RawToolResult(f"sent to {arguments['to']}", None, is_error=False)

        definitions = definitions or [ToolDefinition("mail", "send", "Sends a mail.", SCHEMA)]
        async with open_gate(policies, clock=clock) as gate:
            server = ToolServerSimulator("mail", gate.guard.authority, [(one, answer) for one in definitions])
            entries = {"send": entry or ToolEntry(RecoveryClass.IDEMPOTENT)}
            verifier = ToolVerifier(
                VerificationMode(mode), gate.store, gate.log, gate.engine, gate.clock,
                manifests={"mail": Manifest("mail", entries)},
            )  # fmt: skip
            catalog = Catalog(gate.guard, verifier, [ServerLink("mail", server.command_line, server, timeout_s=5.0)])
            secrets = Secrets({"a/b": "hidden-value-1"})
            made = Bench(gate, server, verifier, catalog, Invoker(catalog, gate.guard, secrets), secrets)
            async with server:
                await catalog.refresh("mail")
                old = gate.engine.current
                tools = [ToolType(ref.name, ref.input_schema) for ref in catalog.refs]
                gate.engine.replace(PolicySet.load(old.sources, old.compiled, tools))
                yield made

    return bench

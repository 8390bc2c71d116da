"""From a hostile server through adapter, catalogue, gate and trail: what comes out, and what is kept on disk."""

import sys
from contextlib import asynccontextmanager

import pytest

from symbi.adapters.mcp import StdioToolServer
from symbi.adapters.secrets import EnvironmentSecrets
from symbi.errors import InputError, PinMismatch, SignatureInvalid, SymbiError, ToolFailed, ToolServerUnavailable
from symbi.policy.catalog import ToolType
from symbi.policy.policies import PolicySet
from symbi.testing.gate import open_gate
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.invoke import Invoker
from symbi.types import AgentId, Principal

pytestmark = pytest.mark.anyio
AGENT = Principal(AgentId("triage"))
SECRET = "hidden-value-1"


class Served:
    """A catalogue over one hostile server, which can be exchanged for a worse one."""

    def __init__(self, gate, stack_folder, script, mode):
        self.gate = gate
        self.script = script
        self.link_folder = stack_folder
        self.verification = VerificationMode(mode)

    @asynccontextmanager
    async def serve(self, mode):
        authority = self.gate.guard.authority
        secrets = EnvironmentSecrets(authority, {"SYMBI_SECRET_A_B": SECRET})
        async with StdioToolServer("hostile", [sys.executable, str(self.script), mode], authority) as server:
            verifier = ToolVerifier(
                self.verification, self.gate.store, self.gate.log, self.gate.engine, self.gate.clock
            )
            link = ServerLink("hostile", server.command_line, server, timeout_s=20.0)
            catalog = Catalog(self.gate.guard, verifier, [link])
            await catalog.refresh("hostile")
            old = self.gate.engine.current
            tools = [ToolType(ref.name, ref.input_schema) for ref in catalog.refs]
            self.gate.engine.replace(PolicySet.load(old.sources, old.compiled, tools))
            yield catalog, Invoker(catalog, self.gate.guard, secrets)


@pytest.fixture
def path(root, tmp_path):
    @asynccontextmanager
    async def open_path(mode="tofu"):
        async with open_gate(folder=tmp_path / "data") as gate:
            yield Served(gate, tmp_path, root / "tests" / "data" / "servers" / "hostile.py", mode)

    return open_path


async def call(invoker, text="hello", *secrets):
    action = invoker.prepare(AGENT, "hostile.echo", {"text": text}, secrets=secrets)
    return (await invoker.call(action)).value


async def test_a_schema_that_changes_after_the_pin_is_quarantined_and_comes_back_when_it_is_undone(path):
    async with path() as one:
        async with one.serve("good") as (_, invoker):
            assert await call(invoker) == "hello"
        async with one.serve("changed") as (catalog, invoker):
            with pytest.raises(PinMismatch):
                await call(invoker)
            assert list(catalog.quarantined) == ["hostile.echo"]
        async with one.serve("good") as (_, invoker):
            assert await call(invoker) == "hello"
        kinds = [event.event_type for event in one.gate.events() if event.event_type.startswith("tool.")]
        assert kinds == ["tool.pinned", "tool.refused", "tool.pinned"]


async def test_an_unsigned_server_offers_nothing_in_strict_mode(path):
    async with path("strict") as one, one.serve("good") as (catalog, invoker):
        with pytest.raises(SignatureInvalid):
            await call(invoker)
        assert catalog.refs == ()


@pytest.mark.parametrize("mode", ["bad-name", "bad-schema"])
async def test_an_unusable_tool_leaves_its_neighbour_usable(path, mode):
    async with path() as one, one.serve(mode) as (catalog, _):
        assert [ref.name for ref in catalog.refs] == ["hostile.good"]
        (reason,) = catalog.quarantined.values()
        assert "\x1b" not in str(reason)


async def test_two_tools_of_one_name_are_both_refused(path):
    async with path() as one, one.serve("twice") as (_, invoker):
        with pytest.raises(InputError, match="offered 2 times"):
            await call(invoker)


async def test_an_answer_is_held_to_its_output_schema(path):
    async with path() as one, one.serve("wrong-output") as (_, invoker):
        with pytest.raises(ToolFailed, match=r"\$\.n must be of type `integer`"):
            await call(invoker)
    for mode, value in (("structured", {"n": 3}), ("output-text", {"n": 4})):
        async with path() as one, one.serve(mode) as (_, invoker):
            assert await call(invoker) == value


async def test_a_tools_own_error_is_bounded_and_printable(path):
    async with path() as one, one.serve("tool-error") as (_, invoker):
        with pytest.raises(ToolFailed) as caught:
            await call(invoker)
        assert "did not work" in caught.value.message
        assert "\x1b" not in caught.value.message
        assert len(caught.value.message) < 2_100


async def test_a_server_that_dies_is_on_record_and_others_go_on(path):
    async with path() as one, one.serve("dies-mid-call") as (catalog, invoker):
        with pytest.raises(ToolServerUnavailable, match="exit status 3"):
            await call(invoker)
        outcome = one.gate.events()[-1].details
        assert (outcome["outcome"], outcome["error"]) == ("unknown", "unavailable.tool_server")
        await catalog.refresh("hostile")
        assert [ref.name for ref in catalog.refs] == ["hostile.echo"]


@pytest.mark.parametrize(
    "mode", ["good", "echo-secret", "error-secret", "rpc-error-secret", "dies-with-secret", "later-secret"]
)
async def test_a_secret_is_in_no_file_and_no_log(path, tmp_path, caplog, mode):
    caplog.set_level("DEBUG")
    shown = []
    async with path() as one, one.serve(mode) as (_, invoker):
        for text, secrets in (("vault://a/b", ("a/b",)), ("again", ())):
            try:
                shown.append(repr(await call(invoker, text, *secrets)))
            except SymbiError as error:
                shown.append(f"{error} {error.fields} {error.__context__!r}")
        shown.append(repr(one.gate.events()))
    assert "vault://a/b" in shown[0]
    assert SECRET not in "".join(shown)
    assert SECRET not in caplog.text
    files = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    assert any(file.stat().st_size for file in files)
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file

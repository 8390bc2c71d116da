"""`symbi memory show|export|forget`, through the owner of the folder or in its place, each on the trail without words."""

import json
import stat

import anyio
import pytest
from typer.testing import CliRunner

from symbi.api import memory
from symbi.cli.main import app
from symbi.context.kinds import ContextItem, MemoryKind
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Label

AGENT = "agent anna() { with { 1 } }"
ALL = '@id("all") permit (principal, action, resource);'
CONFIG = '[policy]\npaths = ["policies"]\n'


async def remember(tmp_path):
    async with open_in(tmp_path, AGENT, policies=ALL, config=CONFIG) as running:
        context = running.runtime.context
        await context.store_context(AgentId("anna"), ContextItem("gooseberry", MemoryKind.SHORT_TERM, tags=("x",)))
        await context.store_context(AgentId("anna"), ContextItem({"n": 1}, label=Label(subjects=("jane@example.com",))))
        await context.checkpoint(AgentId("anna"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "symbi.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    anyio.run(remember, tmp_path)
    return tmp_path


def symbi(*arguments, fails=False):
    ran = CliRunner().invoke(app, arguments)
    assert (ran.exit_code != 0) == fails, ran.output
    return ran.output


def test_what_is_remembered_is_shown_exported_and_removed(folder):
    assert "anna 2 items" in symbi("memory", "show")
    shown = symbi("memory", "show", "anna")
    assert "short-term" in shown
    assert "gooseberry" not in shown
    exported = json.loads(symbi("memory", "export", "anna", "--kind", "short-term"))
    assert [item["content"] for item in exported] == ["gooseberry"]
    symbi("memory", "export", "anna", "-o", "out.json")
    assert stat.S_IMODE((folder / "out.json").stat().st_mode) == 0o600
    assert len(json.loads((folder / "out.json").read_text())) == 2
    assert "removed 1 items" in symbi("memory", "forget", "anna", "--text", "gooseberry")
    assert "removed 0 items" in symbi("memory", "forget", "anna", exported[0]["id"])
    assert "removed 1 items" in symbi("memory", "forget", "anna", "--all")
    assert "nobody remembers anything" in symbi("memory", "show")
    trail = symbi("audit", "show", "--json")
    assert "memory.forget" in trail
    assert "gooseberry" not in trail
    (folder / "out.json").unlink()
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"gooseberry" not in files


def test_what_is_wrong_is_said_in_a_line(folder):
    assert "say which items" in symbi("memory", "forget", "anna", fails=True)
    assert "not the name of an agent" in symbi("memory", "show", "no name", fails=True)
    assert "`kind` is one of" in symbi("memory", "export", "anna", "--kind", "old", fails=True)


@pytest.mark.anyio
async def test_what_is_said_to_be_forgotten_is_found_among_all_that_is_sealed(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.context.finding.MOST_SEALED", 3)
    async with open_in(tmp_path, AGENT, policies=ALL, config=CONFIG) as running:
        runtime, jane = running.runtime, Label(subjects=("jane@example.com",))
        for number in range(8):
            content = f"{'gooseberry' if number in {0, 4} else 'plum'} {number}"
            await runtime.context.store_context(AgentId("anna"), ContextItem(content, tags=("x",), label=jane))
        await runtime.context.store_context(AgentId("anna"), ContextItem("gooseberry of nobody"))
        shown = await everything_of(runtime, text="gooseberry")
        assert shown == ["gooseberry of nobody", "gooseberry 4", "gooseberry 0"]
        assert await everything_of(runtime, text="gooseberry", limit=2) == shown[:2]
        assert await everything_of(runtime, tags=["x"]) == [
            f"{'gooseberry' if n in {0, 4} else 'plum'} {n}" for n in range(7, -1, -1)
        ]
        gone = await memory.forget(runtime, None, {"agent": "anna", "text": "gooseberry"})
        assert gone == {"items": 3}
        assert await everything_of(runtime, text="gooseberry") == []
        assert await memory.forget(runtime, None, {"agent": "anna", "tags": ["x"]}) == {"items": 6}


async def everything_of(runtime, **arguments):
    return [one["content"] for one in await memory.export(runtime, None, {"agent": "anna", **arguments})]

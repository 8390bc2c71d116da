"""`symbi memory show|export|forget`, through the owner of the folder or in its place, each on the trail without words."""

import json
import stat

import anyio
import pytest
from typer.testing import CliRunner

from symbi.api import memory
from symbi.cli.main import app
from symbi.compliance.rooms import Order
from symbi.context.kinds import ContextItem, MemoryKind
from symbi.testing.clock import ManualClock
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
    assert "2 items; 1 checkpoint\nkept for 365 days at most\n" in shown
    assert "gooseberry" not in shown
    exported = json.loads(symbi("memory", "export", "anna", "--kind", "short-term"))
    assert [item["content"] for item in exported] == ["gooseberry"]
    symbi("memory", "export", "anna", "-o", "out.json")
    assert stat.S_IMODE((folder / "out.json").stat().st_mode) == 0o600
    assert len(json.loads((folder / "out.json").read_text())) == 2
    assert "removed 1 item of anna" in symbi("memory", "forget", "anna", "--text", "gooseberry")
    assert "removed 0 items" in symbi("memory", "forget", "anna", exported[0]["id"])
    assert "removed 1 item of anna" in symbi("memory", "forget", "anna", "--all")
    assert "nobody remembers anything" in symbi("memory", "show")
    trail = symbi("audit", "show", "--json")
    assert "memory.forget" in trail
    assert "gooseberry" not in trail
    (folder / "out.json").unlink()
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"gooseberry" not in files


def test_what_is_wrong_is_said_in_a_line(folder):
    assert "say which items" in symbi("memory", "forget", "anna", fails=True)
    assert "no word in it" in symbi("memory", "forget", "anna", "--text", "*", fails=True)
    assert "say whose memory" in symbi("memory", "show", "--kind", "working", fails=True)
    assert "not the name of an agent" in symbi("memory", "show", "no name", fails=True)
    assert "`kind` is one of" in symbi("memory", "export", "anna", "--kind", "old", fails=True)


def test_a_folder_without_policies_says_what_would_permit_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = symbi("memory", "show", fails=True)
    assert "no policy permits" in said
    assert "`symbi init` writes permits it" in " ".join(said.split())


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
        assert gone == {"items": 3, "held": 0, "held_ids": []}
        assert await everything_of(runtime, text="gooseberry") == []
        assert await memory.forget(runtime, None, {"agent": "anna", "tags": ["x"]}) == {
            "items": 6,
            "held": 0,
            "held_ids": [],
        }


async def everything_of(runtime, **arguments):
    said = await memory.export(runtime, None, {"agent": "anna", **arguments})
    return [one["content"] for one in said["items"]]


async def many(tmp_path, held):
    """Items of anna, some about somebody; one more in a checkpoint alone."""
    async with open_in(tmp_path, AGENT, policies=ALL, config=CONFIG) as running:
        context, anna = running.runtime.context, AgentId("anna")
        empty = await context.checkpoint(anna)
        for number in range(7):
            about = Label(subjects=("jane@example.com",)) if number % 3 == 1 else Label()
            await context.store_context(anna, ContextItem(f"gooseberry {number}", tags=("x",), label=about))
        await context.store_context(anna, ContextItem("damson"))
        await context.checkpoint(anna)
        await context.restore(anna, empty.id)
        for number in range(3):
            await context.store_context(anna, ContextItem(f"gooseberry now {number}", tags=("x",)))
        await context.store_context(
            anna, ContextItem("gooseberry of jane", label=Label(subjects=("jane@example.com",)))
        )
        if held:
            await running.runtime.rooms.privacy.hold(Order("jane@example.com", reason="case 7"))


@pytest.mark.parametrize(("said", "removed"), [(("--all",), 9), (("--text", "gooseberry"), 8)])
def test_what_is_held_stays_and_is_told_and_the_rest_goes_from_every_copy(tmp_path, monkeypatch, said, removed):
    monkeypatch.setattr("symbi.context.forgetting.AT_A_TIME", 2)
    monkeypatch.setattr("symbi.context.forgetting.AT_ONCE", 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symbi.toml").write_text(CONFIG)
    anyio.run(many, tmp_path, True)
    ran = CliRunner().invoke(app, ["memory", "forget", "anna", *said])
    assert ran.exit_code == 1
    assert f"removed {removed} items of anna" in ran.output
    assert "3 items stay, for they are about somebody under a legal hold" in ran.output
    ran = CliRunner().invoke(app, ["memory", "forget", "anna", *said, "--json"])
    again = json.loads(ran.stdout)
    assert (ran.exit_code, again["items"], again["held"], len(set(again["held_ids"]))) == (1, 0, 3, 3)
    assert (
        symbi("memory", "forget", "anna", again["held_ids"][0], fails=True).count("1 of 1 named items cannot go") == 1
    )
    symbi("privacy", "release", "jane@example.com")
    assert "removed 3 items of anna" in symbi("memory", "forget", "anna", *said)
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"gooseberry" not in files
    assert (b"damson" in files) == (said[0] != "--all")


def test_all_is_exported_a_page_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.context.finding.MOST_TOKENS", 8)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symbi.toml").write_text(CONFIG)
    anyio.run(kept_at_once, tmp_path)
    exported = json.loads(symbi("memory", "export", "anna"))
    assert [item["content"] for item in exported] == [f"plum {n}" for n in range(6, -1, -1)]
    assert len(json.loads(symbi("memory", "export", "anna", "--text", "plum"))) == 7
    assert "4 items or more; 0 checkpoints" in symbi("memory", "show", "anna")


async def kept_at_once(tmp_path):
    async with open_in(tmp_path, AGENT, policies=ALL, config=CONFIG, clock=ManualClock()) as running:
        for number in range(7):
            await running.runtime.context.store_context(AgentId("anna"), ContextItem(f"plum {number}"))

"""Vectors of memories that are lost, through a runtime with the engine of vectors and at the command line."""

import json
import logging
import shutil

import anyio
import pytest
from typer.testing import CliRunner

from symbi.cli.main import app
from symbi.context.kinds import ContextItem, ContextQuery
from symbi.testing.runtime import open_in
from symbi.types import AgentId

AGENT = "agent anna() { with { 1 } }"
ALL = '@id("all") permit (principal, action, resource);'
CONFIG = '[policy]\npaths = ["policies"]\n'
ANNA = AgentId("anna")
ABOUT = ContextQuery(about="a small fruit")


async def remember(folder, *texts):
    async with open_in(folder, AGENT, policies=ALL, config=CONFIG) as running:
        for text in texts or ("the gooseberry is a sour berry", "the train leaves at nine"):
            await running.runtime.context.store_context(ANNA, ContextItem(text))


async def near(context):
    return [one.content for one in await context.retrieve_context(ANNA, ABOUT)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "symbi.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    anyio.run(remember, tmp_path)
    (index,) = tmp_path.rglob("vectors/memory")
    shutil.rmtree(index)
    return tmp_path


@pytest.fixture
def partly(tmp_path, monkeypatch):
    """One of two vectors is lost: an index that has any is not filled by itself."""
    (tmp_path / "symbi.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    anyio.run(remember, tmp_path, "the gooseberry is a sour berry")
    (index,) = tmp_path.rglob("vectors/memory")
    shutil.copytree(index, before := tmp_path / "before")
    anyio.run(remember, tmp_path, "the train leaves at nine")
    shutil.rmtree(index)
    before.rename(index)
    return tmp_path


def symbi(*arguments, code=0):
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == code, ran.output
    return " ".join(ran.output.split())


@pytest.mark.usefixtures("partly")
def test_what_is_missing_is_told_and_made_again():
    said = symbi("memory", "verify", code=4)
    assert "does not agree: 2 items to be found by meaning, 1 without a vector" in said
    assert "until `symbi memory verify --repair` has made them again" in said
    said = symbi("memory", "verify", "--repair")
    assert "agrees: 2 items to be found by meaning, 1 without a vector, 1 made again" in said
    assert json.loads(symbi("memory", "verify", "--json")) == {
        "items": 2, "missing": 0, "made": 0, "refused": 0, "repaired": False, "clean": True,
    }  # fmt: skip
    assert "memory.verify" in symbi("audit", "show", "--json")


def test_vectors_of_another_embedder_are_named_with_what_to_do(folder):
    symbi("memory", "verify", "--repair")
    (space,) = folder.rglob("vectors/memory/space.json")
    space.write_text(space.read_text().replace('"digest":"', '"digest":"0'))
    said = symbi("memory", "verify", "--repair", code=2)
    assert "move that folder away" in said
    assert "`symbi memory verify --repair` make the vectors anew" in said


@pytest.mark.anyio
async def test_whoever_finds_the_index_empty_has_the_vectors_made_again(folder, caplog):
    with caplog.at_level(logging.WARNING, "symbi.context"):
        async with open_in(folder, AGENT, policies=ALL, config=CONFIG) as running:
            context = running.runtime.context
            assert await near(context) == []
            with anyio.fail_after(60):
                while not await near(context):
                    await context.store_context(ANNA, ContextItem("another one"))
            assert (await context.verify(repair=False)).missing == 0
    assert "the vectors of 2 memories are gone" in caplog.text

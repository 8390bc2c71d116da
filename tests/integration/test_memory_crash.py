"""SIGKILL while an agent remembers: nothing acknowledged is lost, nothing forgotten comes back, and no vector is an orphan."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from symbi.context.kinds import ContextQuery
from symbi.context.meanings import namespace_of
from symbi.guard.action import ReadData
from symbi.knowledge.vectors import Scope
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Principal

pytestmark = pytest.mark.anyio
SCRIPT = Path(__file__).parents[1] / "data" / "crash_memory.py"
AGENT = "agent a() { with { 1 } }"
ALL = '@id("all") permit (principal, action, resource);'
POINTS = [("dispatched", 3), ("upsert", 2), ("upserted", 2), ("settled", 4), ("before_settle", 9)]


@pytest.mark.parametrize(("point", "number"), POINTS, ids=[f"{point}-{number}" for point, number in POINTS])
async def test_what_was_acknowledged_is_there_and_each_vector_has_its_item(tmp_path, point, number):
    ran = subprocess.run(  # noqa: ASYNC221 - nothing else is to go on
        [sys.executable, str(SCRIPT), str(tmp_path), point, str(number)], capture_output=True, check=False, timeout=60
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()[-2000:]
    said = ran.stdout.decode().split()
    async with open_in(tmp_path, AGENT, policies=ALL) as opened:
        context = opened.runtime.context
        found = await context.retrieve_context(AgentId("a"), ContextQuery(limit=100))
        there = {one.content for one in found}
        wanted = {f"item number {n}" for n in said if not n.startswith("-")}
        to_be_forgotten = {"item number 0"} if "3" in said else set()  # it may have been begun
        assert wanted - there <= to_be_forgotten
        assert "item number 0" not in there or "-0" not in said
        assert len(there) <= len(wanted) + 1  # one more may have been durable without being told
        rooms = context.memory.rooms
        vectors = await rooms.meanings._opened()
        data = context.memory.data_of(AgentId("a"), "any")
        async with rooms.guard.enforce(ReadData(principal=Principal(AgentId("a")), data=data)) as permit:
            ids = {str(id_) for id_ in await vectors.index.ids(permit, Scope((namespace_of(AgentId("a")),)))}
        assert ids == {one.id for one in found}
        # And each is found by what it means.
        for one in found:
            best = await context.retrieve_context(AgentId("a"), ContextQuery(about=one.content, limit=1))
            assert best[0].id == one.id
        assert await rooms.log.read(lambda: rooms.store.meaning_due(0, 10)) == []
        assert await rooms.log.read(lambda: rooms.store.vectors_gone(10)) == []

"""What the embedded index does beyond its contract: it lasts, it is one owner's, and nothing waits while it is put in order."""

import os
import signal
import subprocess
import sys
from uuid import UUID

import anyio
import numpy as np
import psutil
import pytest

from symbi.adapters.qdrant_edge import EdgeVectors, process
from symbi.errors import ConfigError, InputError, Overloaded, StoreUnavailable
from symbi.knowledge.config import Quantization, VectorConfig
from symbi.knowledge.vectors import Filter, Scope, VectorPoint, VectorQuery, VectorSpace
from symbi.testing.contracts_vectors import MINE, SPACE, YOURS, assert_same, open_permits, sample_points
from symbi.testing.vectors import BruteForceVectors

pytestmark = pytest.mark.anyio
BOTH = Scope((MINE, YOURS))
WIDE = VectorSpace("test", "d" * 64, 64)
QUICK = VectorConfig(scan_below=256)


@pytest.fixture
def permits():
    return open_permits()


def wide_points(first, count, namespace=MINE):
    rows = np.random.default_rng(first).standard_normal((count, WIDE.dimension)).astype(np.float32)
    return [VectorPoint(UUID(int=first + at), rows[at], namespace, {"time": first + at}) for at in range(count)]


async def test_what_was_put_in_is_there_when_it_is_opened_again(permits, tmp_path):
    points = sample_points(50)
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), points)
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        assert list(await index.ids(permits.read(), BOTH)) == [one.id for one in points]


async def test_vectors_of_another_model_are_refused_in_words(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path, SPACE):
        pass
    for other in (
        VectorSpace("other", SPACE.digest, SPACE.dimension),
        VectorSpace(SPACE.embedder, "e" * 64, SPACE.dimension),
        VectorSpace(SPACE.embedder, SPACE.digest, SPACE.dimension + 1),
    ):
        with pytest.raises(
            ConfigError, match=f"were made by `{SPACE.embedder}`.*the configuration has `{other.embedder}`"
        ):
            await EdgeVectors(permits.authority, tmp_path, other).__aenter__()
    (tmp_path / "space.json").write_text("{}")
    with pytest.raises(StoreUnavailable, match="are damaged"):
        await EdgeVectors(permits.authority, tmp_path, SPACE).__aenter__()


async def test_one_process_owns_it(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        with pytest.raises(StoreUnavailable, match="another process"):
            await EdgeVectors(permits.authority, tmp_path, SPACE).__aenter__()
        assert await index.count(permits.read(), BOTH) == 0
    with pytest.raises(StoreUnavailable, match="closed"):
        await index.count(permits.read(), BOTH)


async def test_reads_and_writes_go_on_while_it_is_put_in_order(permits, tmp_path):
    """Counted, not timed: many are answered between the beginning of the work and its end, and what was written stays."""
    points = wide_points(1, 1_200)
    reads = writes = 0
    done = False

    async def order():
        nonlocal done
        assert await index.optimize()
        done = True

    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK) as index:
        await index.upsert(permits.write(), points)
        before = await index.stats()
        gone = Scope((MINE,), Filter(ids=frozenset({points[7].id})))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(order)
            while not (await index.stats()).optimizing:
                pass
            while not done:
                (hit,) = await index.query(permits.read(), VectorQuery(points[reads % 1_200].vector, 1, Scope((MINE,))))
                assert hit.id == points[reads % 1_200].id or reads % 1_200 == 7
                reads += 1
                if reads % 10 == 0:
                    await index.upsert(permits.write(), wide_points(100_000 + writes, 1))
                    writes += 1
                if reads == 50:
                    assert await index.delete(permits.write(), gone) == 1
        after = await index.stats()
        assert reads > 100
        assert writes > 10
        assert (before.indexed, after.indexed >= 1_100, after.points) == (0, True, 1_199 + writes)
        assert await index.count(permits.read(), gone) == 0
        (hit,) = await index.query(permits.read(), VectorQuery(wide_points(100_000, 1)[0].vector, 1, Scope((MINE,))))
        assert hit.id == UUID(int=100_000)
        assert len([one for one in tmp_path.iterdir() if one.name.startswith("g-")]) == 1
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK) as index:
        assert await index.count(permits.read(), Scope((MINE,))) == 1_199 + writes
        await index.optimize()
        assert not await index.optimize()  # there is nothing to do


async def test_it_puts_itself_in_order_once_enough_was_written(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK, upkeep=True) as index:
        await index.upsert(permits.write(), wide_points(1, 100))  # 25 KiB
        await index.upsert(permits.write(), wide_points(1_000, 500))
        with anyio.fail_after(60):
            while (await index.stats()).indexed < 500:
                pass
        with pytest.raises(InputError):  # an error of who uses it comes as it is
            await index.upsert(permits.write(), sample_points(1))
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK) as index:
        await index.upsert(permits.write(), wide_points(10_000, 600))
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK, upkeep=True) as index:
        with anyio.fail_after(60):
            while (await index.stats()).indexed < 1_100:  # what was written before it was opened counts too
                pass


@pytest.mark.parametrize("dimension", [8, 64])
async def test_points_decide_when_a_graph_is_built_and_not_how_long_they_are(permits, tmp_path, dimension):
    space = VectorSpace("test", "d" * 64, dimension)
    rows = np.random.default_rng(1).standard_normal((400, dimension)).astype(np.float32)
    points = [VectorPoint(UUID(int=at), row, MINE) for at, row in enumerate(rows)]
    async with EdgeVectors(permits.authority, tmp_path, space, QUICK) as index:
        await index.upsert(permits.write(), points[: QUICK.graph_from - 1])
        assert not await index.optimize()
        await index.upsert(permits.write(), points)
        assert await index.optimize()
        assert (await index.stats()).indexed == 400


async def test_what_is_in_no_graph_yet_is_a_part_of_what_is_there(permits, tmp_path):
    """All files are copied to build one: so many are written before that is done again, else each write is copied often."""
    space = VectorSpace("test", "d" * 64, 8)
    rows = np.random.default_rng(1).standard_normal((5_000, 8)).astype(np.float32)
    points = [VectorPoint(UUID(int=at), row, MINE) for at, row in enumerate(rows)]
    async with EdgeVectors(permits.authority, tmp_path, space, QUICK) as index:
        await index.upsert(permits.write(), points[:4_000])
        assert await index.optimize()
        assert QUICK.graph_from < 4_000 / 20
        await index.upsert(permits.write(), points[4_000:4_190])
        assert not await index.optimize()
        await index.upsert(permits.write(), points[4_190:4_300])
        assert await index.optimize()
        assert (await index.stats()).indexed == 4_300


@pytest.mark.parametrize("again", [False, True], ids=["open", "opened-again"])
async def test_points_that_were_replaced_are_in_no_graph_and_get_one(permits, tmp_path, again):
    points = wide_points(0, 600)
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK) as index:
        await index.upsert(permits.write(), points)
        assert await index.optimize()
        assert not await index.optimize()
        turned = [VectorPoint(one.id, -one.vector, MINE, {}) for one in points[:400]]
        await index.upsert(permits.write(), turned)
        if not again:
            assert await index.optimize()
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK) as index:
        assert await index.optimize() is again
        stats = await index.stats()
        assert stats.points == stats.indexed == 600
        assert not await index.optimize()


async def test_a_point_of_another_namespace_is_never_handed_out_whatever_the_engine_says(
    permits, tmp_path, monkeypatch
):
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), sample_points(5))

        async def ask(_self, *_request, **_terms):
            return [[UUID(int=1).bytes, 1.0, {"namespace": YOURS.text}, None]]

        monkeypatch.setattr(process.EngineProcess, "ask", ask)
        with pytest.raises(StoreUnavailable, match="another namespace"):
            await index.query(permits.read(), VectorQuery(sample_points(1)[0].vector, 1, Scope((MINE,))))
        monkeypatch.undo()


async def test_points_that_are_named_are_removed_by_two_questions_and_no_others(permits, tmp_path, monkeypatch):
    mine, yours = wide_points(1, 20), wide_points(100, 20, YOURS)
    named = frozenset(one.id for one in (*mine[:5], *yours[:5])) | {UUID(int=999)}
    asked = []
    ask = process.EngineProcess.ask

    async def noted(engine, *request, **terms):
        asked.append(request[0])
        return await ask(engine, *request, **terms)

    async with EdgeVectors(permits.authority, tmp_path, WIDE) as index:
        await index.upsert(permits.write(), [*mine, *yours])
        monkeypatch.setattr(process.EngineProcess, "ask", noted)
        assert await index.delete(permits.write(), Scope((MINE,), Filter(ids=named))) == 5
        assert asked == ["ids", "delete"]
        assert await index.delete(permits.write(), Scope((MINE,), Filter(ids=named))) == 0
        assert await index.delete(permits.write(), Scope((MINE,), Filter(ids=frozenset()))) == 0
        left = await index.ids(permits.read(), BOTH)
    assert list(left) == [one.id for one in (*mine[5:], *yours)]


async def test_work_that_is_cancelled_leaves_what_was_there(permits, tmp_path):
    points = wide_points(1, 1_200)
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK) as index:
        await index.upsert(permits.write(), points)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(index.optimize)
            while not (await index.stats()).optimizing:
                pass
            tasks.cancel_scope.cancel()
        assert (await index.stats()).points == 1_200
        await index.upsert(permits.write(), wide_points(10_000, 1))
        assert [one.name for one in tmp_path.iterdir() if one.name.startswith("g-")] == ["g-000001"]
        assert await index.optimize()
        assert (await index.stats()).indexed >= 1_100


async def test_the_graph_finds_what_a_look_at_all_finds(permits, tmp_path):
    points = wide_points(1, 1_200)
    async with EdgeVectors(permits.authority, tmp_path, WIDE, QUICK) as index:
        await index.upsert(permits.write(), points)
        await index.optimize()
        found = 0
        for one in wide_points(50_000, 40):
            nearest = await index.query(permits.read(), VectorQuery(one.vector, 10, Scope((MINE,))))
            exact = await index.query(permits.read(), VectorQuery(one.vector, 10, Scope((MINE,)), exact=True))
            found += len({hit.id for hit in nearest} & {hit.id for hit in exact})
        assert found >= 380  # of 400


async def test_without_quantisation_it_answers_too(permits, tmp_path):
    config = VectorConfig(quantization=Quantization.NONE)
    reference = BruteForceVectors(permits.authority, SPACE)
    async with EdgeVectors(permits.authority, tmp_path, SPACE, config) as index:
        for one in (index, reference):
            await one.upsert(permits.write(), sample_points(50))
        query = VectorQuery(sample_points(1, 9)[0].vector, 10, BOTH)
        assert_same(await index.query(permits.read(), query), await reference.query(permits.read(), query))


async def test_a_copy_is_put_in_the_place_of_what_is_there(permits, tmp_path):
    points = sample_points(40)
    async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
        await index.upsert(permits.write(), points)
        await index.snapshot(tmp_path / "copy")
        with pytest.raises(InputError, match="already"):
            await index.snapshot(tmp_path / "copy")
        await index.delete(permits.write(), BOTH)
        await index.restore(tmp_path / "copy")
        assert list(await index.ids(permits.read(), BOTH)) == [one.id for one in points]
        await index.upsert(permits.write(), sample_points(5, 2))
    async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
        assert await index.count(permits.read(), BOTH) == 45
    other = VectorSpace("other", "e" * 64, SPACE.dimension)
    async with EdgeVectors(permits.authority, tmp_path / "b", other) as index:
        with pytest.raises(ConfigError):
            await index.restore(tmp_path / "copy")
        assert await index.count(permits.read(), BOTH) == 0


async def test_what_is_no_copy_is_refused_and_nothing_changes(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
        await index.upsert(permits.write(), sample_points(3))
        await index.snapshot(tmp_path / "copy")
        for one in (tmp_path / "copy" / "shard").rglob("*"):
            if one.is_file():
                one.write_bytes(b"nonsense")
        with pytest.raises(InputError):
            await index.restore(tmp_path / "copy")
        with pytest.raises(InputError):
            await index.restore(tmp_path / "nothing")
        assert await index.count(permits.read(), BOTH) == 3
    async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
        assert await index.count(permits.read(), BOTH) == 3


async def test_an_engine_that_dies_is_started_anew_and_has_all_that_it_acknowledged(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        there = 0
        for points in (sample_points(30, seed) for seed in range(1, 6)):
            await index.upsert(permits.write(), points)
            there += len(points)
            os.kill(index.engine_pid, signal.SIGKILL)
            with anyio.fail_after(20):
                while True:  # it may be asked before its end is known
                    try:
                        assert await index.count(permits.read(), BOTH) == there
                        break
                    except StoreUnavailable:
                        continue


OWNER = """
import sys
from pathlib import Path
import anyio
from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.testing.contracts_vectors import MINE, SPACE, open_permits, sample_points
async def main():
    permits = open_permits()
    async with EdgeVectors(permits.authority, Path(sys.argv[1]), SPACE) as index:
        first = int(sys.argv[2])
        while True:
            await index.upsert(permits.write(), sample_points(7, first, (MINE,)))
            print(first, index.engine_pid, flush=True)
            first += 1
anyio.run(main)
"""


BUILDER = """
import sys
from pathlib import Path
from uuid import UUID
import anyio
import numpy as np
import psutil
from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.knowledge.config import VectorConfig
from symbi.knowledge.vectors import VectorPoint, VectorSpace
from symbi.testing.contracts_vectors import MINE, open_permits
async def main():
    permits = open_permits()
    space = VectorSpace("test", "d" * 64, 64)
    rows = np.random.default_rng(1).standard_normal((20_000, 64)).astype(np.float32)
    async with EdgeVectors(permits.authority, Path(sys.argv[1]), space, VectorConfig(scan_below=256)) as index:
        await index.upsert(permits.write(), [VectorPoint(UUID(int=at), row, MINE) for at, row in enumerate(rows)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(index.optimize)
            mine = psutil.Process()
            while len(mine.children()) < 2:
                await anyio.lowlevel.checkpoint()
            (other,) = {one.pid for one in mine.children()} - {index.engine_pid}
            while psutil.Process(other).cpu_times().user < 1.5:  # it is past its start, and builds
                await anyio.lowlevel.checkpoint()
            print(other, flush=True)
anyio.run(main)
"""


def start_owner(folder, first, program=OWNER):
    return subprocess.Popen([sys.executable, "-c", program, str(folder), str(first)], stdout=subprocess.PIPE)


async def test_nothing_that_was_acknowledged_is_lost_when_the_owner_is_killed(permits, tmp_path):
    """In rounds, each at another moment; the engine does not outlive its owner."""
    first = 1
    everything: set[int] = set()
    for round_ in range(ROUNDS):
        owner = start_owner(tmp_path, first)
        lines = [owner.stdout.readline() for _ in range(2 + 5 * round_ % 23)]
        os.kill(owner.pid, signal.SIGKILL)
        lines += owner.stdout.read().splitlines()
        owner.wait()
        owner.stdout.close()
        told = [tuple(map(int, one.split())) for one in lines if one.endswith(b"\n") or one is lines[-1]]
        everything |= {seed for seed, _ in told}
        first, engine = told[-1][0] + 2, told[-1][1]  # the next one may have been on its way
        with anyio.fail_after(20):
            while alive(engine):
                await anyio.lowlevel.checkpoint()
        async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
            there = set(await index.ids(permits.read(), Scope((MINE,)), limit=10_000))
            assert everything
            for seed in everything:
                assert {one.id for one in sample_points(7, seed, (MINE,))} <= there


def cpu_s(pid):
    try:
        return psutil.Process(pid).cpu_times().user
    except psutil.NoSuchProcess:
        return 0


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_an_engine_that_builds_a_graph_does_not_outlive_its_owner_either(tmp_path):
    owner = start_owner(tmp_path, 1, BUILDER)
    builder = int(owner.stdout.readline())
    most_s = cpu_s(builder) + 1  # it would take many more to finish
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    with anyio.fail_after(60):
        while alive(builder):
            assert cpu_s(builder) < most_s
            await anyio.lowlevel.checkpoint()
    async with EdgeVectors(open_permits().authority, tmp_path, WIDE, QUICK) as index:
        assert (await index.stats()).points == 20_000


async def test_who_waits_is_bounded(permits, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "MAX_WAITING", 3)
    refused = []

    async def ask(index):
        try:
            await index.count(permits.read(), BOTH)
        except Overloaded as overload:
            refused.append(overload.retry_after_s)

    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask, index)
        assert len(refused) == 6  # one is at it, and three wait
        assert await index.count(permits.read(), BOTH) == 0


async def test_of_what_is_erased_nothing_stays_in_a_file(permits, tmp_path):
    points = sample_points(40)
    wanted = points[5]
    secret = VectorPoint(UUID(int=99), wanted.vector, MINE, {"subject": "pseudonym-of-ada", "document": "her-letter"})
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), [*points, secret])
        assert holds(tmp_path, b"her-letter")
        assert holds(tmp_path, secret.id.bytes) or holds(tmp_path, str(secret.id).encode())
        assert await index.erase_subjects(["pseudonym-of-ada"]) == 1
        assert not holds(tmp_path, b"her-letter")
        assert not holds(tmp_path, b"pseudonym-of-ada")
        assert list(await index.ids(permits.read(), BOTH)) == [one.id for one in points]
        assert await index.query(permits.read(), VectorQuery(wanted.vector, 1, BOTH))
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        assert await index.count(permits.read(), BOTH) == 40


async def test_an_erasure_that_a_crash_cut_short_is_finished(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), [VectorPoint(UUID(int=99), np.ones(8), MINE, {"subject": "ada-ada-ada"})])
        index._folder.mark()
        await index.delete(permits.write(), BOTH)
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        assert holds(tmp_path, b"ada-ada-ada")
        assert await index.erase_subjects(["ada-ada-ada"]) == 0
        assert not holds(tmp_path, b"ada-ada-ada")


@pytest.mark.parametrize("closed", [False, True])
async def test_of_what_was_deleted_before_nothing_stays_in_a_file_once_somebody_is_erased(permits, tmp_path, closed):
    points = sample_points(40)
    secret = VectorPoint(
        UUID(int=99), points[5].vector, MINE, {"subject": "pseudonym-of-ada", "document": "her-letter"}
    )
    index = EdgeVectors(permits.authority, tmp_path, SPACE)
    async with index:
        await index.upsert(permits.write(), [*points, secret])
        assert await index.delete(permits.write(), Scope((MINE,), Filter(ids=frozenset({secret.id})))) == 1
        assert holds(tmp_path, b"her-letter")
        if not closed:
            assert await index.erase_subjects(["pseudonym-of-ada"]) == 0
            assert not holds(tmp_path, b"her-letter")
            generation = index._folder.current()
            assert await index.erase_subjects(["pseudonym-of-ada"]) == 0
            assert index._folder.current() == generation, "it was written anew where nothing was left"
    if closed:
        (tmp_path / "dead").unlink()  # as where the process was killed
        async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
            assert await index.erase_subjects(["pseudonym-of-ada"]) == 0
            assert not holds(tmp_path, b"her-letter")
            assert list(await index.ids(permits.read(), BOTH)) == [one.id for one in points]


async def test_a_copy_may_hold_what_was_deleted_before_it_was_made(permits, tmp_path):
    secret = VectorPoint(UUID(int=99), np.ones(8), MINE, {"subject": "pseudonym-of-ada", "document": "her-letter"})
    async with EdgeVectors(permits.authority, tmp_path / "index", SPACE) as index:
        await index.upsert(permits.write(), [secret])
        await index.delete(permits.write(), BOTH)
        await index.snapshot(tmp_path / "copy")
        await index.erase_subjects(["pseudonym-of-ada"])
        assert not holds(tmp_path / "index", b"her-letter")
        await index.restore(tmp_path / "copy")
        assert holds(tmp_path / "index", b"her-letter")
        await index.erase_subjects(["pseudonym-of-ada"])
        assert not holds(tmp_path / "index", b"her-letter")


def holds(folder, wanted):
    return any(wanted in one.read_bytes() for one in folder.rglob("*") if one.is_file())


ROUNDS = int(os.environ.get("SYMBI_KILL_ROUNDS", "4"))

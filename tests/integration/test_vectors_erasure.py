"""What is erased goes from the files of an index, also what was replaced, and whoever else is at work there."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import pytest

from symbi.adapters.qdrant_edge import EdgeVectors, process
from symbi.adapters.qdrant_edge.folder import CollectionFolder
from symbi.errors import StoreUnavailable
from symbi.knowledge.vectors import Scope, VectorPoint
from symbi.testing.contracts_vectors import MINE, SPACE, YOURS, open_permits, sample_points

pytestmark = pytest.mark.anyio
BOTH = Scope((MINE, YOURS))


@pytest.fixture
def permits():
    return open_permits()


def holds(folder, wanted):
    return any(wanted in one.read_bytes() for one in folder.rglob("*") if one.is_file())


@pytest.mark.parametrize("closed", [False, True])
async def test_of_what_was_replaced_nothing_stays_in_a_file_once_somebody_is_erased(permits, tmp_path, closed):
    secret = VectorPoint(UUID(int=99), np.ones(8), MINE, {"subject": "pseudonym-of-ada", "document": "her-letter"})
    plain = VectorPoint(secret.id, secret.vector, MINE, {"document": "a-notice"})
    index = EdgeVectors(permits.authority, tmp_path, SPACE)
    async with index:
        await index.upsert(permits.write(), [secret])
        await index.upsert(permits.write(), [plain])
        assert holds(tmp_path, b"her-letter")
        if not closed:
            assert await index.erase_subjects(["pseudonym-of-ada"]) == 0
            assert not holds(tmp_path, b"her-letter")
    if closed:
        (tmp_path / "dead").unlink()  # as where the process was killed
        async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
            assert await index.erase_subjects(["pseudonym-of-ada"]) == 0
    assert not holds(tmp_path, b"her-letter")
    assert holds(tmp_path, b"a-notice")


async def test_files_of_which_nothing_says_that_they_are_clean_are_written_anew(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), sample_points(3))
        assert (tmp_path / "clean").exists()
        (tmp_path / "clean").unlink()  # as in a folder of a release that did not note it
        generation = index._folder.current()
        assert await index.erase_subjects(["pseudonym-of-ada"]) == 0
        assert index._folder.current() != generation
        assert (tmp_path / "clean").exists()
        assert await index.count(permits.read(), BOTH) == 3


async def test_what_is_replaced_while_all_is_written_anew_is_in_the_new_files(permits, tmp_path, monkeypatch):
    """What was copied already is replaced in the copy, too, and stays in its files: nobody may say that they are clean."""
    secret = VectorPoint(UUID(int=99), np.ones(8), MINE, {"subject": "pseudonym-of-ada", "document": "her-letter"})
    other = VectorPoint(UUID(int=98), np.ones(8), MINE, {"subject": "pseudonym-of-bob"})
    copied = EdgeVectors._copy_points

    async def copy_and_replace(self, engine):
        await copied(self, engine)
        monkeypatch.setattr(EdgeVectors, "_copy_points", copied)
        await self.upsert(permits.write(), [VectorPoint(secret.id, secret.vector, MINE, {"document": "a-notice"})])

    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), [secret, other])
        monkeypatch.setattr(EdgeVectors, "_copy_points", copy_and_replace)
        assert await index.erase_subjects(["pseudonym-of-bob"]) == 1
        assert holds(tmp_path, b"her-letter")
        assert await index.erase_subjects(["pseudonym-of-ada"]) == 0
        assert not holds(tmp_path, b"her-letter")
        assert holds(tmp_path, b"a-notice")


async def test_two_erasures_at_once_write_all_anew_no_more_often_than_they_have_to(permits, tmp_path):
    points = [VectorPoint(UUID(int=at), np.ones(8), MINE, {"subject": f"subject-{at}"}) for at in (1, 2, 3)]
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index, anyio.create_task_group() as tasks:
        await index.upsert(permits.write(), points)
        async with index._order:
            for name in ("subject-1", "subject-2"):
                tasks.start_soon(index.erase_subjects, [name])
            with anyio.fail_after(60):
                while index._order.statistics().tasks_waiting < 2:
                    await anyio.lowlevel.checkpoint()
            assert await index.count(permits.read(), BOTH) == 1
    assert [one.name for one in tmp_path.glob("g-*")] == ["g-000002"], "it was written anew for each of them"
    assert not any(holds(tmp_path, name) for name in (b"subject-1", b"subject-2"))


async def test_who_has_given_the_folder_back_says_nothing_of_its_files(permits, tmp_path, monkeypatch):
    """They are another owner's by then, who may have deleted something."""
    wiping, closed = threading.Event(), threading.Event()
    wipe, refused = CollectionFolder.wipe, []

    def wipe_late(self):
        wiping.set()
        assert closed.wait(60)
        wipe(self)

    async def erase(index):
        try:
            await index.erase_subjects(["pseudonym-of-ada"])
        except StoreUnavailable as error:
            refused.append(error.message)

    monkeypatch.setattr(CollectionFolder, "wipe", wipe_late)
    async with anyio.create_task_group() as tasks:
        async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
            secret = VectorPoint(UUID(int=99), np.ones(8), MINE, {"subject": "pseudonym-of-ada"})
            await index.upsert(permits.write(), [secret, *sample_points(3)])
            tasks.start_soon(erase, index)
            await anyio.to_thread.run_sync(wiping.wait)
        closed.set()
    assert refused == ["the index of vectors is closed"]
    assert (tmp_path / "rewrite").exists()
    assert not (tmp_path / "clean").exists()


def test_what_several_note_at_once_is_noted(tmp_path):
    """Two erasures do; where each wrote the note of the other, one of them would be refused."""
    folder = CollectionFolder(tmp_path)
    together = threading.Barrier(8, timeout=30)

    def note(_number):
        for _ in range(50):
            together.wait()
            folder.mark()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(8)))
    assert folder.is_marked()


async def test_an_engine_that_is_started_anew_takes_no_place_of_what_came_meanwhile(permits, tmp_path, monkeypatch):
    """Who asks where an engine has ended starts one on the files of then, which a copy may take the place of."""
    load, loading, go_on = process.EngineProcess.load, anyio.Event(), anyio.Event()
    there, later = sample_points(3), sample_points(6)[3:]

    async def load_slowly(self, folder, terms):
        if folder == started_from:
            loading.set()
            await go_on.wait()
        await load(self, folder, terms)

    async with EdgeVectors(permits.authority, tmp_path / "index", SPACE) as index:
        await index.upsert(permits.write(), there)
        await index.snapshot(tmp_path / "copy")
        started_from = index._folder.current()
        monkeypatch.setattr(process.EngineProcess, "load", load_slowly)
        await index._engine.end()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(index.count, permits.read(), BOTH)
            await loading.wait()
            tasks.start_soon(index.restore, tmp_path / "copy")
            with anyio.fail_after(60):
                while not index._restart.statistics().tasks_waiting:
                    await anyio.lowlevel.checkpoint()
            go_on.set()
        await index.upsert(permits.write(), later)
    async with EdgeVectors(permits.authority, tmp_path / "index", SPACE) as index:
        assert await index.count(permits.read(), BOTH) == 6

"""An embedded index that is damaged says so, and never goes on as if there had been nothing."""

import os
import shutil
import threading
from pathlib import Path
from uuid import UUID

import anyio
import numpy as np
import pytest

from symbi.adapters.qdrant_edge import EdgeVectors, copying
from symbi.adapters.qdrant_edge.folder import CollectionFolder
from symbi.errors import InputError, StoreUnavailable
from symbi.knowledge.config import VectorConfig
from symbi.knowledge.vectors import Scope, VectorPoint, VectorSpace
from symbi.testing.contracts_vectors import MINE, SPACE, YOURS, open_permits, sample_points

pytestmark = pytest.mark.anyio
BOTH = Scope((MINE, YOURS))
OTHER = VectorSpace("other", "e" * 64, SPACE.dimension)


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture
async def filled(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
        await index.upsert(permits.write(), sample_points(20))
    return tmp_path / "a"


async def counted(permits, folder, space=SPACE):
    async with EdgeVectors(permits.authority, folder, space) as index:
        return await index.count(permits.read(), BOTH)


def generations(folder):
    return sorted(one.name for one in folder.iterdir() if one.name.startswith("g-"))


async def test_vectors_that_do_not_say_whose_they_are_are_not_taken_for_ones_own(permits, filled):
    said = (filled / "space.json").read_bytes()
    (filled / "space.json").unlink()
    for space in (OTHER, SPACE):
        with pytest.raises(StoreUnavailable, match="does not say of which model"):
            await counted(permits, filled, space)
    (filled / "space.json").write_bytes(said)
    assert await counted(permits, filled) == 20


async def test_vectors_of_which_nothing_says_that_they_count_are_kept(permits, filled):
    (filled / "current").unlink()
    with pytest.raises(StoreUnavailable, match=r"are damaged.*is gone"):
        await counted(permits, filled)
    (filled / "current").write_bytes(b"\xff\xfe\n")
    with pytest.raises(StoreUnavailable, match="does not say which of them count"):
        await counted(permits, filled)
    (filled / "current").write_bytes(b"g-000001\n")
    assert await counted(permits, filled) == 20


async def test_what_is_gone_while_it_is_open_is_not_made_anew_in_its_place(permits, filled):
    async with EdgeVectors(permits.authority, filled, SPACE) as index:
        (filled / "current").unlink()
        await index._engine.end()
        with pytest.raises(StoreUnavailable, match="is gone"):
            await index.count(permits.read(), BOTH)
    assert generations(filled) == ["g-000001"]


async def test_a_first_start_that_was_cut_short_is_begun_again(permits, tmp_path):
    async with EdgeVectors(permits.authority, tmp_path, SPACE):
        pass
    (tmp_path / "current").unlink()
    (tmp_path / "making").write_bytes(b"")  # as it is before the first generation counts
    assert await counted(permits, tmp_path) == 0
    assert not (tmp_path / "making").exists()


@pytest.mark.parametrize("part", ["edge_config.json", "segments", "wal"])
async def test_an_engine_is_not_let_make_anew_what_is_gone(permits, filled, part):
    gone = filled / "g-000001" / part
    gone.rename(filled / "aside")
    with pytest.raises(StoreUnavailable, match="`g-000001` is not whole"):
        await counted(permits, filled)
    (filled / "aside").rename(gone)
    assert await counted(permits, filled) == 20


async def test_a_copy_that_is_not_whole_takes_nobodys_place_and_leaves_nothing(permits, filled, tmp_path):
    copy = tmp_path / "copy"
    async with EdgeVectors(permits.authority, filled, SPACE) as index:
        await index.snapshot(copy)
        await index.delete(permits.write(), Scope((YOURS,)))
        there = await index.count(permits.read(), BOTH)
        for part in ("segments", "wal"):
            shutil.rmtree(copy / "shard" / part)
        for _ in range(2):
            with pytest.raises(InputError, match="no whole copy: it has 0 vectors of 20"):
                await index.restore(copy)
        assert await index.count(permits.read(), BOTH) == there
    assert generations(filled) == ["g-000001"]


async def test_a_copy_without_its_files_is_told_as_one(permits, filled, tmp_path):
    async with EdgeVectors(permits.authority, filled, SPACE) as index:
        await index.snapshot(tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy" / "shard")
        with pytest.raises(InputError, match="it has no shard"):
            await index.restore(tmp_path / "copy")
        assert await index.count(permits.read(), BOTH) == 20
        assert generations(filled) == ["g-000001"]


async def test_a_copy_that_cannot_be_written_is_not_half_there(permits, filled, tmp_path, monkeypatch):
    def full(*_, **__):
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device"), ("c", "d", "and so on")])

    async with EdgeVectors(permits.authority, filled, SPACE) as index:
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copytree", full)
            with pytest.raises(StoreUnavailable, match=r"No space left on device$"):
                await index.snapshot(tmp_path / "copy")
        await index.snapshot(tmp_path / "copy")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreUnavailable, match="Not a directory"):
            await index.snapshot(tmp_path / "file" / "copy")


async def test_what_cannot_be_noted_is_unavailable_and_nothing_is_erased(permits, filled):
    async with EdgeVectors(permits.authority, filled, SPACE) as index:
        await index.upsert(permits.write(), [VectorPoint(UUID(int=99), np.ones(8), MINE, {"subject": "ada"})])
        (filled / "rewrite").mkdir()
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            await index.erase_subjects(["ada"])
        assert await index.count_subjects(["ada"]) == 1


async def test_work_that_is_done_when_the_index_is_closed_takes_nobodys_place(permits, tmp_path):
    """The copy is ready; what it was to take the place of is another owner's by now."""
    space, config = VectorSpace("test", "d" * 64, 64), VectorConfig(scan_below=256)
    rows = np.random.default_rng(1).standard_normal((1_200, 64)).astype(np.float32)
    refused = []

    async def order(index):
        try:
            await index.optimize()
        except StoreUnavailable as error:
            refused.append(error.message)

    async with anyio.create_task_group() as tasks:
        async with EdgeVectors(permits.authority, tmp_path, space, config) as index:
            await index.upsert(permits.write(), [VectorPoint(UUID(int=at), one, MINE) for at, one in enumerate(rows)])
            tasks.start_soon(order, index)
            while index._touched is None:
                await anyio.lowlevel.checkpoint()
        assert index.engine_pid == 0
    assert refused == ["the index of vectors is closed"]
    assert index.engine_pid == 0
    assert (tmp_path / "current").read_text() == "g-000001\n"


async def test_what_was_erased_is_gone_only_once_its_files_are(permits, filled, monkeypatch):
    def kept(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    async with EdgeVectors(permits.authority, filled, SPACE) as index:
        await index.upsert(permits.write(), [VectorPoint(UUID(int=99), np.ones(8), MINE, {"subject": "ada-ada-ada"})])
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "rmtree", kept)
            with pytest.raises(StoreUnavailable, match="not permitted"):
                await index.erase_subjects(["ada-ada-ada"])
        assert await index.erase_subjects(["ada-ada-ada"]) == 0  # asked again, it does the rest
        assert not any(b"ada-ada-ada" in one.read_bytes() for one in filled.rglob("*") if one.is_file())


async def test_a_copy_takes_no_more_room_than_what_is_copied(permits, filled, tmp_path):
    """The engine's files are large, and nearly all of them is holes."""
    async with EdgeVectors(permits.authority, filled, SPACE) as index:
        await index.snapshot(tmp_path / "copy")
        pairs = [
            (one, tmp_path / "copy" / "shard" / one.relative_to(filled / "g-000001"))
            for one in (filled / "g-000001").rglob("*")
            if one.is_file()
        ]
    assert len(pairs) > 10
    assert sum(one.stat().st_size for one, _ in pairs) > 50_000_000
    assert copying.disk_bytes(tmp_path / "copy") <= 2 * copying.disk_bytes(filled)
    for _, copy in pairs:
        assert copy.exists()
    async with EdgeVectors(permits.authority, tmp_path / "b", SPACE) as index:
        await index.restore(tmp_path / "copy")
        assert await index.count(permits.read(), BOTH) == 20


async def test_a_folder_that_the_engine_removes_while_it_is_counted_takes_nothing(filled, monkeypatch):
    """It writes its files in passing folders, beside whoever asks how it stands."""
    whole, passing, listed = copying.disk_bytes(filled), filled / "g-000001" / ".atomicwrite", os.scandir
    passing.mkdir()
    gone = []

    def removed(path):
        if Path(path) == passing:
            passing.rmdir()
            gone.append(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", removed)
    assert copying.disk_bytes(filled) == whole
    assert len(gone) == 1


async def test_a_folder_that_cannot_be_counted_is_an_error(filled, monkeypatch):
    def refused(path):
        raise PermissionError(13, "no", path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        copying.disk_bytes(filled)


@pytest.mark.parametrize("when", ["before it is counted", "after"])
async def test_how_much_vectors_take_is_told_while_others_take_their_place(filled, monkeypatch, when):
    """Whoever asks how they stand asks beside the work that puts them in order."""
    kept, old, new = CollectionFolder(filled), filled / "g-000001", filled / "g-000002"
    shutil.copytree(old, new)
    (new / "more").write_bytes(bytes(1_000_000))
    count, counted = copying.disk_bytes, []

    def beside(folder):
        counted.append(folder)
        size = count(folder) if when == "after" else 0
        if folder == old:
            kept.count_on(new)
            kept.tidy()
        return size or count(folder)

    monkeypatch.setattr("symbi.adapters.qdrant_edge.folder.disk_bytes", beside)
    assert kept.size_bytes() == count(new) > 1_000_000
    assert counted == [old, new]


async def test_vectors_that_are_not_whole_any_more_while_another_takes_their_place_are_not_damaged(filled, monkeypatch):
    kept, new, exists = CollectionFolder(filled), filled / "g-000002", Path.exists
    shutil.copytree(filled / "g-000001", new)

    def beside(path):
        if path.parent == filled / "g-000001":
            kept.count_on(new)
            shutil.rmtree(filled / "g-000001")
        return exists(path)

    monkeypatch.setattr(Path, "exists", beside)
    assert kept.size_bytes() == copying.disk_bytes(new)
    shutil.rmtree(new / "wal")
    with pytest.raises(StoreUnavailable, match="is not whole"):
        kept.size_bytes()


@pytest.mark.parametrize(
    "parts", [[], [(0, 5)], [(3_000_000, 7)], [(0, 1), (9_999_999, 1)], [(0, 2_500_000), (5_000_000, 1_048_577)]]
)
def test_a_file_is_copied_with_its_holes(tmp_path, parts):
    source, target = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        for begin, count in parts:
            file.seek(begin)
            file.write(np.random.default_rng(begin).bytes(count))
        file.truncate(10_000_000)
    copying.copy_file(str(source), str(target))
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks


async def test_a_disk_is_not_filled_with_a_copy(permits, tmp_path, monkeypatch):
    space, config = VectorSpace("test", "d" * 64, 64), VectorConfig(scan_below=256)
    rows = np.random.default_rng(1).standard_normal((600, 64)).astype(np.float32)
    async with EdgeVectors(permits.authority, tmp_path / "a", space, config) as index:
        await index.upsert(permits.write(), [VectorPoint(UUID(int=at), one, MINE) for at, one in enumerate(rows)])
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10**9, 10**9, 10_000_000))
            for work in (index.optimize, lambda: index.snapshot(tmp_path / "copy")):
                with pytest.raises(StoreUnavailable, match=r"no room for a copy.*and 9 are free"):
                    await work()
            ada = VectorPoint(UUID(int=700), rows[0], MINE, {"subject": "ada"})
            await index.upsert(permits.write(), [ada])
            with pytest.raises(StoreUnavailable, match="no room"):
                await index.erase_subjects(["ada"])
        assert not (tmp_path / "copy").exists()
        assert generations(tmp_path / "a") == ["g-000001"]
        assert await index.optimize()
        assert (await index.stats()).points == 600


async def test_what_is_removed_while_the_index_is_written_anew_goes_from_the_files_too(permits, tmp_path, monkeypatch):
    wiping, removed = threading.Event(), threading.Event()
    wipe = CollectionFolder.wipe

    def wipe_slowly(self):
        wiping.set()
        assert removed.wait(30)
        wipe(self)

    points = [
        VectorPoint(UUID(int=one), sample_points(1)[0].vector, MINE, {"subject": (f"subject-{one}",)})
        for one in (1, 2, 3)
    ]
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), points)
        monkeypatch.setattr(CollectionFolder, "wipe", wipe_slowly)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(index.erase_subjects, ["subject-1"])
            await anyio.to_thread.run_sync(wiping.wait)
            assert await index.remove_subjects(["subject-2"]) == 1  # the new files have it
            removed.set()
        assert (tmp_path / "rewrite").exists()
    async with EdgeVectors(permits.authority, tmp_path, SPACE, upkeep=True) as index:
        with anyio.fail_after(60):
            while (tmp_path / "rewrite").exists():
                await index.stats()
    files = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
    assert (b"subject-1" in files, b"subject-2" in files, b"subject-3" in files) == (False, False, True)

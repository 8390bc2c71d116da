"""An index that is kept is built once; one that was broken off is finished; another folder is refused."""

from types import SimpleNamespace

import anyio
import pytest

from symbi.bench import Scale, kept, run_benchmarks
from symbi.bench.kept import NOTES, keep
from symbi.bench.vectors import search
from symbi.errors import InputError

COUNT = 700
SMALL = 0.0007
FOLDER = f"vectors-{COUNT}"


def test_what_is_kept_is_built_once_and_measured_again(tmp_path):
    first = run_benchmarks(["KNOW-2"], scale=SMALL, keep=tmp_path)
    built = (tmp_path / FOLDER / NOTES).read_bytes()
    again = run_benchmarks(["KNOW-2"], scale=SMALL, keep=tmp_path)
    assert (tmp_path / FOLDER / NOTES).read_bytes() == built
    assert [row.metric for row in again] == [row.metric for row in first]
    assert again[:4] == first[:4]  # of the building


def test_what_was_broken_off_is_finished(tmp_path):
    with keep(tmp_path, FOLDER, 0) as folder:
        folder.note(0, 0.5)
    rows = anyio.run(search, Scale(SMALL, tmp_path))
    (found,) = [row.value for row in rows if row.metric == "recall@10, graph"]
    assert found == 100
    (rate,) = [row.value for row in rows if row.metric == "vectors put in"]
    with keep(tmp_path, FOLDER, 0) as folder:
        assert rate == COUNT / (folder.built.took_ns / 1e9)
        folder.built.rows = []  # it was put in, and the graph was not built
        folder.done(())
    again = anyio.run(search, Scale(SMALL, tmp_path))
    assert [row.metric for row in again] == [row.metric for row in rows]


def test_a_folder_of_something_else_and_a_disk_without_room_are_refused(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / NOTES).write_text("[]")
    with pytest.raises(InputError, match="no folder of a measurement"), keep(tmp_path, "other", 0):
        pass
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=10**9))
    for where in (tmp_path, None):
        with (
            pytest.raises(InputError, match=r"has 0\.9 GiB, and the index takes 1\.9 GiB"),
            keep(where, "new", 2 * 10**9),
        ):
            pass
    with keep(tmp_path, "small", 10**9) as folder:
        assert folder.kept
        (folder.folder / "index").write_bytes(bytes(10**6))
    with keep(tmp_path, "small", 10**9 + 900_000):  # what is there has its room
        pass


def test_without_a_folder_nothing_stays():
    with keep(None, "any", 0) as folder:
        where = folder.folder
        assert where.exists()
    assert not where.exists()

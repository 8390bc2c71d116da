"""Pages of the write-ahead log go into the file beside commits: none waits for them, none is lost, and the log stays bounded."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.backfill import MOST_PAGES, PAGES

PAGE = 4_096
ROWS = 20  # of a commit, each of which fills more than half of a page
OF_A_COMMIT = 3 * ROWS  # pages, at most
COUNT = "SELECT count(*) FROM meta WHERE key LIKE 'row%'"


def commit(store, number, rows=ROWS):
    with store.transaction():
        for row in range(rows):
            store._write("INSERT INTO meta (key, value) VALUES (?, ?)", (f"row{number}-{row}", "x" * 2_500))


def rows_in_the_file(folder, copy):
    """What is in the file, whatever is in the log."""
    shutil.copy(folder / "symbi.db", copy)
    with closing(sqlite3.connect(f"{copy.as_uri()}?immutable=1", uri=True)) as file:
        return file.execute(COUNT).fetchone()[0]


def test_no_commit_moves_pages_and_all_are_moved_beside_them(tmp_path):
    folder = tmp_path / "data"
    with SqliteStore(folder) as store:
        before = (folder / "symbi.db").read_bytes()
        with store._backfill.held():
            for number in range(2 * PAGES // ROWS):
                commit(store, number)
            assert (folder / "symbi.db-wal").stat().st_size > 2 * PAGES * PAGE
            assert (folder / "symbi.db").read_bytes() == before
        store._backfill.settle()
        assert rows_in_the_file(folder, tmp_path / "copy") == 2 * PAGES
        length = (folder / "symbi.db-wal").stat().st_size
        commit(store, "next")  # begins the log anew, for all of it is in the file
        assert (folder / "symbi.db-wal").stat().st_size == length


def test_pages_that_cannot_be_moved_beside_are_moved_by_a_commit_before_the_log_is_too_long(tmp_path):
    folder = tmp_path / "data"
    with SqliteStore(folder) as store, store._backfill.held():
        for number in range(2 * MOST_PAGES // ROWS):
            commit(store, number)
        assert (folder / "symbi.db-wal").stat().st_size < (MOST_PAGES + 2 * OF_A_COMMIT) * (PAGE + 24)


def test_where_the_file_cannot_be_opened_again_commits_go_on_and_no_other_is_made(tmp_path):
    folder = tmp_path / "data"
    with SqliteStore(folder) as store:
        (folder / "symbi.db").rename(folder / "moved")
        for number in range(2 * PAGES // ROWS):
            commit(store, number)
        store._backfill.settle()
        assert not (folder / "symbi.db").exists()
        assert store._one(COUNT)[0] == 2 * PAGES
        (folder / "moved").rename(folder / "symbi.db")
    with SqliteStore(folder) as store:
        assert store._one(COUNT)[0] == 2 * PAGES


def test_a_commit_is_none_the_less_made_where_no_thread_is_to_be_had(tmp_path, monkeypatch):
    """What raises behind it would be taken for a commit that failed, and the trail would be begun again before it."""

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    folder = tmp_path / "data"
    with SqliteStore(folder) as store:
        with monkeypatch.context() as patch:
            patch.setattr("threading.Thread.start", refused)
            for number in range(2 * PAGES // ROWS):
                commit(store, number)
            assert store._backfill._moving is None
        for number in range(PAGES // ROWS):
            commit(store, f"later{number}")
        store._backfill.settle()
        assert rows_in_the_file(folder, tmp_path / "copy") >= 2 * PAGES


def test_an_erasure_cuts_the_log_while_nothing_else_moves_pages(tmp_path):
    folder = tmp_path / "data"
    with SqliteStore(folder) as store:
        held = []
        store._db.set_trace_callback(
            lambda sql: held.append(store._backfill._turn.locked()) if "TRUNCATE" in sql else None
        )
        for number in range(2 * PAGES // ROWS):
            commit(store, number)
        store._backfill.settle()  # so that only the erasure itself can hold it
        store.let_go()
        assert held == [True]
        assert not (folder / "symbi.db-wal").stat().st_size


KILLED = """
import os, signal, sys
from pathlib import Path
from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.backfill import Backfill
folder, last, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if when == "moving":
    move = Backfill._move
    moves = []
    def killed(self):
        moves.append(1)
        if len(moves) == 3:
            move(self)
            os.kill(os.getpid(), signal.SIGKILL)
        move(self)
    Backfill._move = killed
with SqliteStore(folder) as store:
    for number in range(10_000):
        with store.transaction():
            for row in range(20):
                store._write("INSERT INTO meta (key, value) VALUES (?, ?)", (f"row{number}-{row}", "x" * 2_500))
        print(number, flush=True)
        if when == "committed" and number == last:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_outlives_a_kill_while_pages_are_moved(tmp_path):
    for round_, (last, when) in enumerate([(41, "committed"), (93, "committed"), (170, "committed"), (0, "moving")]):
        folder = tmp_path / str(round_)
        ran = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(last), when], capture_output=True, check=False, timeout=60
        )
        assert ran.returncode == -9, ran.stderr.decode()[-2000:]
        acknowledged = len(ran.stdout.split())
        assert acknowledged > 40
        with SqliteStore(folder) as store:
            numbers = {
                int(key.partition("-")[0][3:]) for (key,) in store._all("SELECT key FROM meta WHERE key LIKE 'row%'")
            }
            assert numbers >= set(range(acknowledged))
            assert len(numbers) <= acknowledged + 1
            assert store._one(COUNT)[0] == ROWS * len(numbers)
            assert store._one("PRAGMA integrity_check")[0] == "ok"


def test_a_store_that_is_closed_has_moved_all(tmp_path):
    folder = tmp_path / "data"
    with SqliteStore(folder) as store:
        for number in range(PAGES // ROWS):
            commit(store, number)
    assert rows_in_the_file(folder, tmp_path / "copy") == PAGES
    assert not (folder / "symbi.db-wal").exists()

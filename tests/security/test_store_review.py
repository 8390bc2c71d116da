"""The data folder as somebody else may have prepared it, and a trail whose key is gone."""

import os
import stat
from pathlib import Path

import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteStore
from symbi.config import load_settings
from symbi.errors import ConfigError, StoreUnavailable
from symbi.wiring import open_runtime

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", ["owner.lock", DATABASE_NAME])
def test_a_link_in_the_data_folder_is_not_followed(tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).symlink_to(precious)
    with pytest.raises(StoreUnavailable), SqliteStore(folder):
        pytest.fail("the store was opened")
    assert precious.read_text() == "keep me"


def test_nobody_else_reads_the_store_also_in_a_folder_that_is_open(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    before = os.umask(0o022)
    try:
        with SqliteStore(folder) as store:
            with store.transaction():
                pass
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert DATABASE_NAME in modes
    assert set(modes.values()) == {0o600}


def test_a_new_folder_is_durable_in_the_folders_above_it(tmp_path, monkeypatch):
    flushed: list[Path] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(
            next(path for path in (tmp_path, tmp_path / "a") if os.path.samestat(os.fstat(descriptor), path.stat()))
        )
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with SqliteStore(tmp_path / "a" / "b"):
        pass
    assert set(flushed) == {tmp_path, tmp_path / "a"}
    flushed.clear()
    with SqliteStore(tmp_path / "a" / "b"):
        pass
    assert flushed == []


async def test_a_trail_whose_key_is_gone_is_not_given_another(tmp_path):
    (tmp_path / "symbi.toml").write_text("")
    settings = load_settings(tmp_path / "symbi.toml", environ={})
    async with open_runtime(settings):
        pass
    (key,) = (settings.runtime.data_dir / "keys").glob("*.key")
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(ConfigError, match="there is no key"):
        async with open_runtime(settings):
            pytest.fail("the runtime opened")
    assert not key.exists()
    key.touch(0o600)
    key.write_bytes(kept)
    async with open_runtime(settings):
        pass

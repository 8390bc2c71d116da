"""What the system does not say is not taken for well: whose a data folder is, and how many segments wait."""

import os

import pytest

from symbi.config import load_settings
from symbi.errors import StoreUnavailable
from symbi.wiring import folder_owner
from symbi.wiring.keeping import probe_storage


@pytest.fixture
def settings(tmp_path):
    return load_settings(None, environ={"SYMBI_RUNTIME_DATA_DIR": str(tmp_path / "data")})


def test_a_folder_that_is_not_there_yet_will_be_ours(settings):
    assert folder_owner(settings) == os.geteuid()


def test_where_the_system_does_not_say_nobody_owns_it(settings, tmp_path):
    (tmp_path / "data").symlink_to(tmp_path / "data")  # for ever
    with pytest.raises(StoreUnavailable, match="cannot tell who owns"):
        folder_owner(settings)


def test_a_storage_whose_store_cannot_be_read_is_not_told_as_well(tmp_path):
    """Where nothing was begun nothing waits; where something was, somebody has to look."""
    (tmp_path / "storage").mkdir()
    environ = {"SYMBI_RUNTIME_DATA_DIR": str(tmp_path / "data"), "SYMBI_AUDIT_STORAGE": str(tmp_path / "storage")}
    settings = load_settings(None, environ=environ)
    (found,) = probe_storage(settings)
    assert found.ok
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "symbi.db").write_bytes(b"no database" * 100)
    (found,) = probe_storage(settings)
    assert not found.ok
    assert "how many wait cannot be told" in found.detail

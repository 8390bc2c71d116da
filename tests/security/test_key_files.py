"""Key files that others can read, have put there, or that were half written."""

import os
import stat
import threading

import pytest

from symbi.adapters import keys
from symbi.adapters.keys import FileKeyStore
from symbi.crypto.keys import KeyPurpose, KeyRing
from symbi.crypto.provider import open_provider
from symbi.errors import ConfigError, StoreUnavailable

PURPOSE = KeyPurpose.AUDIT_SIGNING
SECRET = b"\x5a" * 32


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def store(folder):
    return FileKeyStore(folder)


@pytest.fixture
def path(folder, store):
    store.store(PURPOSE, SECRET)
    return folder / "audit-signing.key"


def refusal(store):
    with pytest.raises(ConfigError) as caught:
        store.load(PURPOSE)
    assert caught.value.code == "config.key_unsafe"
    return caught.value


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_key_and_its_folder_are_ours_alone_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        FileKeyStore(tmp_path / "keys").store(PURPOSE, SECRET)
    finally:
        os.umask(before)
    path = tmp_path / "keys/audit-signing.key"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert path.read_bytes() == SECRET
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_key_that_others_may_touch_is_refused(store, path, bits):
    path.chmod(bits)
    error = refusal(store)
    assert f"open to others (mode {bits:04o})" in error.message
    assert "chmod 600" in error.hint


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o770, 0o777, 0o711, 0o1777])
def test_a_folder_that_others_may_enter_is_refused(store, path, bits):
    path.parent.chmod(bits)
    assert "chmod 700" in refusal(store).hint
    with pytest.raises(ConfigError):
        store.store(KeyPurpose.SEALING_MASTER, SECRET)
    path.parent.chmod(0o700)
    assert store.load(PURPOSE) == SECRET
    assert store.load(KeyPurpose.SEALING_MASTER) is None


def test_a_link_in_place_of_a_key_is_refused(store, path):
    real = path.with_name("elsewhere")
    path.rename(real)
    path.symlink_to(real)
    assert "is a symbolic link" in refusal(store).message


def test_a_link_in_place_of_the_folder_is_refused(tmp_path, store, path):
    real = tmp_path / "real"
    path.parent.rename(real)
    path.parent.symlink_to(real)
    assert "is not a folder" in refusal(store).message
    with pytest.raises(ConfigError):
        store.store(KeyPurpose.SEALING_MASTER, SECRET)


def test_a_dangling_link_is_refused_and_not_written_through(tmp_path, folder, store):
    folder.mkdir(mode=0o700)
    target = tmp_path / "target"
    (folder / "audit-signing.key").symlink_to(target)
    refusal(store)
    with pytest.raises(ConfigError, match="is not replaced"):
        store.store(PURPOSE, SECRET)
    assert not target.exists()


def test_a_pipe_in_place_of_a_key_is_refused_at_once(folder, store):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "audit-signing.key", 0o600)
    assert "is not a file" in refusal(store).message


def test_a_folder_in_place_of_a_key_is_refused(folder, store):
    folder.mkdir(mode=0o700)
    (folder / "audit-signing.key").mkdir(mode=0o700)
    assert "is not a file" in refusal(store).message


def test_a_key_of_another_user_is_refused(monkeypatch, store, path):
    monkeypatch.setattr(keys.os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "belongs to user" in refusal(store).message


def test_a_file_in_place_of_the_folder_is_refused(folder, store):
    folder.write_bytes(b"")
    assert "is not a folder" in refusal(store).message


@pytest.mark.parametrize("call", ["write", "fsync", "link", "fchmod"])
def test_a_write_that_fails_leaves_no_key_and_no_rest(monkeypatch, folder, store, call):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keys.os, call, fail)
        with pytest.raises(StoreUnavailable, match="No space left on device"):
            store.store(PURPOSE, SECRET)
    assert list(folder.iterdir()) == []
    assert store.load(PURPOSE) is None


def test_a_short_write_leaves_no_key(monkeypatch, folder, store):
    write = os.write
    monkeypatch.setattr(keys.os, "write", lambda descriptor, data: write(descriptor, data[:16]))
    with pytest.raises(StoreUnavailable, match="only a part was written"):
        store.store(PURPOSE, SECRET)
    assert list(folder.iterdir()) == []


def test_a_crash_while_writing_leaves_no_key(monkeypatch, folder, store):
    """The process ends before the key is linked to its place: the next one starts as if there had been nothing."""

    class Crashed(BaseException):
        pass

    def crash(*arguments):
        raise Crashed

    with monkeypatch.context() as patch:
        patch.setattr(keys.os, "link", crash)
        patch.setattr(keys.Path, "unlink", lambda _: None)
        with pytest.raises(Crashed):
            store.store(PURPOSE, SECRET)
    assert len(list(folder.iterdir())) == 1
    assert store.load(PURPOSE) is None
    store.store(PURPOSE, SECRET)
    assert store.load(PURPOSE) == SECRET


def test_a_key_is_on_the_disk_before_it_has_its_name(monkeypatch, store, folder):
    calls = []

    def noted(name):
        call = getattr(os, name)

        def wrapped(*arguments, **options):
            calls.append(name)
            return call(*arguments, **options)

        return wrapped

    for name in ("write", "fsync", "link"):
        monkeypatch.setattr(keys.os, name, noted(name))
    store.store(PURPOSE, SECRET)
    assert calls == ["write", "fsync", "link", "fsync"]


def test_an_unreadable_place_is_unavailable(monkeypatch, store, path):
    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(keys.os, "open", fail)
    with pytest.raises(StoreUnavailable, match="Permission denied") as caught:
        store.load(PURPOSE)
    assert caught.value.code == "unavailable.keys"


def test_of_many_first_starts_at_once_one_makes_the_key(folder):
    provider = open_provider()
    barrier = threading.Barrier(8, timeout=30)
    found = []

    def start():
        ring = KeyRing(FileKeyStore(folder), provider)
        barrier.wait()
        found.append(ring.signing_key().key_id)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in folder.iterdir()] == ["audit-signing.key"]

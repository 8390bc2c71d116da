"""The ports for policies on every adapter: PolicyMemory (the store, on disk and in memory) and PolicyReader (folders)."""

import pytest

from symbi.adapters.policy_files import MAX_FILE_BYTES, PolicyFolders
from symbi.adapters.sqlite import SqliteStore
from symbi.errors import InputError, StoreUnavailable
from symbi.runtime.policy_signing import MANIFEST_NAME


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


def test_what_was_noted_is_read_and_replaced_and_nothing_else_of_the_store_is(store):
    assert store.policy_note("set:prod") is None
    with store.transaction():
        store.put_policy_note("set:prod", "1 aa")
        store.put_policy_note("set:test", "7 bb")
        store.put_policy_note("set:prod", "2 cc")
        store.put_policy_note("epoch", "99")
    assert (store.policy_note("set:prod"), store.policy_note("set:test")) == ("2 cc", "7 bb")
    assert store.epoch == 1


def test_a_note_goes_with_its_transaction(store):
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.put_policy_note("set:prod", "1 aa")
        1 / 0  # noqa: B018 - the transaction is undone by it
    assert store.policy_note("set:prod") is None


def test_notes_outlive_their_owner_and_a_closed_store_has_none(tmp_path):
    with SqliteStore(tmp_path) as first, first.transaction():
        first.put_policy_note("set:prod", "3 dd")
    with pytest.raises(StoreUnavailable):
        first.policy_note("set:prod")
    with SqliteStore(tmp_path) as second:
        assert (second.policy_note("set:prod"), second.epoch) == ("3 dd", 2)


@pytest.fixture
def folder(tmp_path):
    policies = tmp_path / "policies"
    (policies / "deep").mkdir(parents=True)
    (policies / "b.cedar").write_text("b")
    (policies / "deep/a.cedar").write_text("a")
    (policies / "history.toml").write_text("t")
    (policies / "notes.md").write_text("not read")
    return tmp_path


def test_a_folder_is_read_with_all_that_can_change_a_decision_in_one_order(folder):
    (bundle,) = PolicyFolders(folder).read(["policies"])
    assert [(file.name, file.shown, file.data) for file in bundle.files] == [
        ("b.cedar", "policies/b.cedar", b"b"),
        ("deep/a.cedar", "policies/deep/a.cedar", b"a"),
        ("history.toml", "policies/history.toml", b"t"),
    ]
    assert (bundle.path, bundle.manifest, bundle.absent) == ("policies", None, False)


def test_one_file_is_a_bundle_of_its_own_with_its_signature_beside_it(folder):
    (folder / "policies/b.cedar.sig.json").write_bytes(b"signed")
    one, whole = PolicyFolders(folder).read(["policies/b.cedar", "policies"])
    assert ([file.name for file in one.files], one.manifest) == (["b.cedar"], b"signed")
    assert (len(whole.files), whole.manifest) == (3, None)
    (folder / "policies" / MANIFEST_NAME).write_bytes(b"all")
    assert PolicyFolders(folder).read(["policies"])[0].manifest == b"all"


def test_what_is_not_there_is_an_empty_bundle(folder):
    (bundle,) = PolicyFolders(folder).read(["absent"])
    assert (bundle.files, bundle.absent) == ((), True)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p / "b.cedar").write_text("c"),
        lambda p: (p / "new.cedar").write_text(""),
        lambda p: (p / "b.cedar").unlink(),
        lambda p: (p / "b.cedar").rename(p / "c.cedar"),
        lambda p: (p / MANIFEST_NAME).write_text(""),
        lambda p: (p / "deep/a.cedar").replace(p / "b.cedar"),
        lambda p: (p / "history.toml").write_text("u"),
    ],
)
def test_each_change_is_seen_without_opening_a_file(folder, change):
    folders = PolicyFolders(folder)
    before = folders.look(["policies"])
    assert folders.look(["policies"]) == before
    (folder / "policies/notes.md").write_text("changed")
    assert folders.look(["policies"]) == before
    change(folder / "policies")
    assert folders.look(["policies"]) != before


def test_a_file_that_is_too_large_or_dangles_is_an_error(folder):
    big = folder / "policies/big.cedar"
    with big.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match="is larger than"):
        PolicyFolders(folder).read(["policies"])
    big.unlink()
    big.symlink_to(folder / "nowhere")
    with pytest.raises(InputError, match="cannot read"):
        PolicyFolders(folder).read(["policies"])


def test_links_to_folders_are_not_followed(folder):
    outside = folder / "outside"
    outside.mkdir()
    (outside / "x.cedar").write_text("x")
    (folder / "policies/linked").symlink_to(outside)
    assert "linked/x.cedar" not in [file.name for file in PolicyFolders(folder).read(["policies"])[0].files]


@pytest.mark.parametrize("ask", ["look", "read"])
def test_a_path_that_the_system_cannot_even_look_at_is_an_input_error(folder, ask):
    for path in ("x" * 300, "x" * 5000):
        with pytest.raises(InputError, match="cannot read `"):
            getattr(PolicyFolders(folder), ask)([path])

"""The vault: keys that are durable before they seal, and that can be destroyed."""

import json
from contextlib import contextmanager

import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.crypto.keys import KeyRing
from symbi.crypto.provider import open_provider
from symbi.errors import ConfigError, DecryptionFailed, InputError, InternalError, StoreUnavailable
from symbi.guard import vault as vault_module
from symbi.guard.sealed import is_sealed, is_sealed_json, read_sealed
from symbi.guard.vault import NO_KEYS, Hold, Vault, agent_subject, place
from symbi.policy.about import subject_name
from symbi.policy.flow import MORE_SUBJECTS
from symbi.testing.clock import ManualClock
from symbi.testing.log import open_log
from symbi.types import AgentId

pytestmark = pytest.mark.anyio

HERE = place("effects", "result", "e1")
TEXT = b'"the diagnosis"'


def ring(folder, *, create=True):
    return KeyRing(FileKeyStore(folder / "keys"), open_provider(), create=create)


def vault_of(trail, folder, **options):
    return Vault(trail.store, ring(folder), open_provider(), ManualClock(), trail.log, **options)


@pytest.fixture
async def trail(tmp_path):
    async with open_log(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def vault(trail, tmp_path):
    return vault_of(trail, tmp_path)


async def destroy(trail, vault, subject):
    count, _ = await trail.log.transact(lambda: (vault.destroy(subject), ()))
    return count


async def test_what_is_sealed_opens_at_its_place_alone(vault):
    keys = await vault.ready(["anna@example.com"])
    sealed = keys.seal(TEXT, HERE)
    assert is_sealed(sealed)
    assert b"diagnosis" not in sealed
    assert vault.open(sealed, HERE) == TEXT
    assert vault.seal(["anna@example.com"], TEXT, HERE) != sealed, "every nonce is new"
    for elsewhere in (place("effects", "error", "e1"), place("effects", "result", "e2"), b""):
        with pytest.raises(DecryptionFailed, match="belongs elsewhere") as caught:
            vault.open(sealed, elsewhere)
        assert caught.value.fields["reason"] == "altered"


async def test_what_is_about_nobody_stays_as_it_is(vault):
    assert await vault.ready([]) is NO_KEYS
    assert NO_KEYS.seal(TEXT, HERE) == TEXT
    assert vault.open(TEXT, HERE) == TEXT
    assert NO_KEYS.digest(b"d" * 32) == b"d" * 32
    with pytest.raises(InternalError):
        NO_KEYS.seal_text(TEXT, HERE)


async def test_several_subjects_are_all_needed(vault, trail):
    both = await vault.ready(["anna", "ben"])
    sealed, alone = both.seal(TEXT, HERE), (await vault.ready(["ben"])).seal(TEXT, HERE)
    assert vault.open(sealed, HERE) == TEXT
    assert len(read_sealed(sealed).keys) == 2
    assert await destroy(trail, vault, "anna") == 1
    with pytest.raises(DecryptionFailed, match="was erased at") as caught:
        vault.open(sealed, HERE)
    assert caught.value.fields["reason"] == "erased"
    assert vault.open(alone, HERE) == TEXT
    assert await destroy(trail, vault, "anna") == 0


async def test_who_was_erased_may_come_again_under_another_key(vault, trail):
    before = await vault.ready(["anna"])
    old = before.seal(TEXT, HERE)
    await destroy(trail, vault, "anna")
    late = before.seal(TEXT, HERE)  # by whoever had the key in hand
    after = await vault.ready(["anna"])
    assert before.ids != after.ids
    assert vault.open(after.seal(TEXT, HERE), HERE) == TEXT
    for sealed in (old, late):
        with pytest.raises(DecryptionFailed, match="erased"):
            vault.open(sealed, HERE)


async def test_a_crowd_is_erased_with_anybody(vault, trail):
    sealed = (await vault.ready([MORE_SUBJECTS])).seal(TEXT, HERE)
    assert vault.open(sealed, HERE) == TEXT
    await destroy(trail, vault, "somebody")
    with pytest.raises(DecryptionFailed, match="erased"):
        vault.open(sealed, HERE)


async def test_a_hold_keeps_keys(vault, trail):
    sealed = (await vault.ready(["anna"])).seal(TEXT, HERE)
    crowd = (await vault.ready([MORE_SUBJECTS])).seal(TEXT, HERE)
    with trail.store.transaction():
        trail.store.set_hold(Hold(vault.pseudonym("anna"), b"", "2026-01-01T00:00:00.000000000Z"))
    with pytest.raises(InputError, match="on hold since 2026"):
        await destroy(trail, vault, "anna")
    with pytest.raises(InputError, match="one on hold may be among them"):
        await destroy(trail, vault, "ben")
    assert vault.open(sealed, HERE) == vault.open(crowd, HERE) == TEXT
    with trail.store.transaction():
        trail.store.release_hold(vault.pseudonym("anna"))
    assert await destroy(trail, vault, "anna") == 1


async def test_keys_are_durable_before_they_seal(tmp_path):
    async with open_log(tmp_path / "data") as trail:
        vault = vault_of(trail, tmp_path)
        keys = await vault.ready(["anna"])
        with SqliteReader(tmp_path / "data") as reader:  # sees what is committed, and nothing else
            assert reader.subject_key(keys.ids[0]) is not None
        sealed = keys.seal(TEXT, HERE)
    with SqliteReader(tmp_path / "data") as reader:
        readers = Vault(reader, ring(tmp_path, create=False), open_provider(), ManualClock())
        assert readers.open(sealed, HERE) == TEXT
        with pytest.raises(InternalError, match="makes no keys"):
            await readers.ready(["ben"])


async def test_a_key_whose_transaction_was_undone_seals_nothing_later(vault, trail):
    def undone():
        vault.keys_now(["anna"])
        raise LookupError

    with pytest.raises(LookupError):
        await trail.log.transact(undone)
    with pytest.raises(InternalError, match="not ready"):
        vault.seal(["anna"], TEXT, HERE)
    keys = await vault.ready(["anna"])
    assert trail.store.subject_key(keys.ids[0]) is not None


async def test_a_key_whose_commit_failed_seals_nothing(vault, trail, monkeypatch):
    real = trail.store.transaction

    @contextmanager
    def failing():
        with real():
            yield
            raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(trail.store, "transaction", failing)
    with pytest.raises(StoreUnavailable, match="full"):
        await vault.ready(["anna"])
    monkeypatch.undo()
    assert trail.store.any_subject_key() is None
    with pytest.raises(InternalError, match="not ready"):
        vault.seal(["anna"], TEXT, HERE)
    keys = await vault.ready(["anna"])
    assert trail.store.subject_key(keys.ids[0]) is not None


async def test_keys_beyond_the_bound_are_read_again(vault, monkeypatch):
    monkeypatch.setattr(vault_module, "MAX_CACHED_KEYS", 2)
    sealed = {name: (await vault.ready([name])).seal(TEXT, HERE) for name in ("anna", "ben", "cleo", "dan")}
    assert len(vault._by_id) == len(vault._current) == 2
    assert all(vault.open(text, HERE) == TEXT for text in sealed.values())
    assert len(vault._by_id) == 2
    assert (await vault.ready(sealed)).ids == tuple(sorted(read_sealed(text).keys[0] for text in sealed.values()))


async def test_without_the_master_nothing_opens_and_with_another_nothing_is_sealed(trail, vault, tmp_path):
    sealed = (await vault.ready(["anna"])).seal(TEXT, HERE)
    absent = Vault(trail.store, ring(tmp_path / "none", create=False), open_provider(), ManualClock(), trail.log)
    with pytest.raises(ConfigError) as caught:
        absent.open(sealed, HERE)
    assert caught.value.code == "config.key_absent"
    other = Vault(trail.store, ring(tmp_path / "other"), open_provider(), ManualClock(), trail.log)
    with pytest.raises(DecryptionFailed) as failed:
        other.open(sealed, HERE)
    assert failed.value.fields["reason"] == "master"
    with pytest.raises(ConfigError, match="not the one that wrapped"):
        await other.ready(["anna"])
    assert other.pseudonym("anna") != vault.pseudonym("anna")


async def test_a_digest_is_of_the_keys_and_not_to_be_guessed(vault):
    anna, ben = await vault.ready(["anna"]), await vault.ready(["ben"])
    both = await vault.ready(["ben", "anna"])
    digests = {keys.digest(b"d" * 32) for keys in (anna, ben, both, NO_KEYS)}
    assert len(digests) == 4
    assert both.digest(b"d" * 32) == (await vault.ready(["anna", "ben"])).digest(b"d" * 32)
    assert vault.keys_of(both.ids).digest(b"d" * 32) == both.digest(b"d" * 32)


def test_one_name_has_one_spelling():
    assert subject_name(" Anna@Example.COM ") == subject_name("anna@example.com")
    assert subject_name("Jose\u0301") == subject_name("Jos\u00e9")
    assert subject_name("C-17a") != subject_name("C-17A"), "ids may differ by case alone"
    for bad in ("", "  ", "*", "a\nb", "a\0b", "\0agent:a", "x" * 257):
        with pytest.raises(InputError):
            subject_name(bad)


async def test_an_agent_is_no_subject_of_the_same_name(vault):
    assert vault.pseudonym(agent_subject(AgentId("anna"))) != vault.pseudonym("anna")
    assert "anna" not in vault.pseudonym("anna")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"sealed": d["sealed"] | {"keys": []}},
        lambda d: d | {"sealed": d["sealed"] | {"keys": ["../../etc/passwd"]}},
        lambda d: d | {"sealed": d["sealed"] | {"keys": d["sealed"]["keys"] * 2}},
        lambda d: d | {"sealed": d["sealed"] | {"text": "no base64!"}},
        lambda d: d | {"sealed": d["sealed"] | {"more": 1}},
        lambda d: d | {"more": 1},
        lambda _: {"sealed": "x"},
    ],
)
async def test_what_has_not_the_form_is_refused(vault, change):
    keys = await vault.ready(["anna"])
    document = change(json.loads(keys.seal(TEXT, HERE)[1:]))
    with pytest.raises(DecryptionFailed) as caught:
        vault.open(b"\x01" + json.dumps(document).encode(), HERE)
    assert caught.value.fields["reason"] == "form"
    assert not is_sealed_json({"sealed": 1})


async def test_a_key_that_was_taken_out_or_exchanged_does_not_open(vault, trail, tmp_path):
    anna, ben = await vault.ready(["anna"]), await vault.ready(["ben"])
    sealed = anna.seal(TEXT, HERE)
    swapped = sealed.replace(anna.ids[0].encode(), ben.ids[0].encode())
    with pytest.raises(DecryptionFailed, match="altered"):
        vault.open(swapped, HERE)
    fresh = vault_of(trail, tmp_path)
    with trail.store.transaction():  # the wrapped key of one in the row of the other
        row = trail.store.subject_key(anna.ids[0])
        trail.store._db.execute("UPDATE subject_keys SET wrapped = ? WHERE key_id = ?", (row.wrapped, ben.ids[0]))
    with pytest.raises(DecryptionFailed) as caught:
        fresh.open(ben.seal(TEXT, HERE), HERE)
    assert caught.value.fields["reason"] == "master"
    with trail.store.transaction():
        trail.store._db.execute("DELETE FROM subject_keys")
    with pytest.raises(DecryptionFailed) as caught:
        fresh.open(sealed, HERE)
    assert caught.value.fields["reason"] == "key"


def test_a_store_in_memory_has_keys_too(tmp_path):
    with SqliteStore(None) as store:
        vault = Vault(store, ring(tmp_path), open_provider(), ManualClock())
        with store.transaction():
            keys = vault.keys_now(["anna"])
        assert vault.open(keys.seal(TEXT, HERE), HERE) == TEXT


async def test_a_key_that_is_destroyed_while_somebody_waits_for_it_seals_nothing_later(trail, vault, monkeypatch):
    """Both may stand in one commit: who waits for the key goes on after it was destroyed."""
    transact = trail.log.transact

    async def and_destroyed(work, **options):
        answer = await transact(work, **options)
        await transact(lambda: (vault.destroy("anna"), ()))
        return answer

    monkeypatch.setattr(trail.log, "transact", and_destroyed)
    first = await vault.ready(["anna"])
    monkeypatch.undo()
    later = await vault.ready(["anna"])
    assert later.ids != first.ids
    assert vault.open(later.seal(TEXT, HERE), HERE) == TEXT


async def test_a_destroyed_key_is_in_memory_no_more_whoever_had_it_read(trail, vault, tmp_path):
    sealed = (await vault.ready(["anna"])).seal(TEXT, HERE)
    other = vault_of(trail, tmp_path)
    assert other.open(sealed, HERE) == TEXT
    assert list(other._by_id) == list(read_sealed(sealed).keys)
    await destroy(trail, other, "anna")
    assert not other._by_id

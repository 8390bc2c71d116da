import pytest

from symbi.crypto.keys import KeyPurpose, KeyRing
from symbi.crypto.provider import open_provider
from symbi.crypto.sealing import SealingKey
from symbi.crypto.signing import SigningKey
from symbi.errors import ConfigError, DecryptionFailed, InputError, StoreUnavailable

PROVIDER = open_provider()


class Store:
    """A KeyStore that does what a test tells it to."""

    def __init__(self, **secrets):
        self.secrets = {KeyPurpose[name]: secret for name, secret in secrets.items()}
        self.loads = []
        self.forgets = False
        self.rival = None

    def load(self, purpose, generation=1):
        self.loads.append(purpose)
        return self.secrets.get(purpose if generation == 1 else (purpose, generation))

    def store(self, purpose, secret, generation=1):
        name = purpose if generation == 1 else (purpose, generation)
        if self.rival is not None:
            self.secrets[name] = self.rival
        if name in self.secrets:
            msg = "there already"
            raise ConfigError(msg)
        if not self.forgets:
            self.secrets[name] = secret

    def describe(self):
        return "a test"


class ReadOnly(Store):
    def store(self, purpose, secret, generation=1):
        msg = "takes none"
        raise ConfigError(msg)


def test_a_key_is_made_at_the_first_start_and_found_at_the_next():
    store = Store()
    first = KeyRing(store, PROVIDER).signing_key()
    assert KeyRing(store, PROVIDER).signing_key().verifying_key() == first.verifying_key()
    assert {purpose: len(secret) for purpose, secret in store.secrets.items()} == {KeyPurpose.AUDIT_SIGNING: 32}


def test_two_installations_have_two_keys():
    assert KeyRing(Store(), PROVIDER).signing_key().key_id != KeyRing(Store(), PROVIDER).signing_key().key_id


def test_each_purpose_has_a_key_of_its_own_and_of_its_own_type():
    store = Store()
    ring = KeyRing(store, PROVIDER)
    assert type(ring.signing_key()) is SigningKey
    assert type(ring.sealing_key("backups")) is SealingKey
    assert len(set(store.secrets.values())) == len(KeyPurpose) == 2


def test_the_sealing_secret_does_not_sign():
    with pytest.raises(InputError, match="does not sign"):
        KeyRing(Store(), PROVIDER).signing_key(KeyPurpose.SEALING_MASTER)


def test_a_key_is_loaded_once():
    store = Store()
    ring = KeyRing(store, PROVIDER)
    assert ring.signing_key() is ring.signing_key()
    assert ring.sealing_key("backups") is ring.sealing_key("backups")
    assert len(store.loads) == 5  # each twice where it is made, and whether a second signing key is there


def test_each_label_has_a_sealing_key_of_its_own():
    ring = KeyRing(Store(SEALING_MASTER=bytes(32)), PROVIDER)
    sealed = ring.sealing_key("backups").seal(b"text", b"")
    with pytest.raises(DecryptionFailed):
        ring.sealing_key("memory").open(sealed, b"")


def test_sealing_keys_are_the_same_after_a_restart_and_by_either_provider():
    store = Store()
    sealed = KeyRing(store, PROVIDER).sealing_key("backups").seal(b"text", b"")
    assert KeyRing(store, open_provider("libsodium")).sealing_key("backups").open(sealed, b"") == b"text"


def test_a_sealing_key_is_not_the_master_itself():
    sealed = KeyRing(Store(SEALING_MASTER=bytes(32)), PROVIDER).sealing_key("backups").seal(b"text", b"")
    with pytest.raises(DecryptionFailed):
        SealingKey(bytes(32), "backups", PROVIDER).open(sealed, b"")


def test_where_another_process_was_first_its_key_is_taken():
    store = Store()
    store.rival = b"\x07" * 32
    assert KeyRing(store, PROVIDER).signing_key().key_id == SigningKey(b"\x07" * 32, PROVIDER).key_id


def test_a_store_that_takes_no_key_is_an_error():
    with pytest.raises(ConfigError, match="takes none"):
        KeyRing(ReadOnly(), PROVIDER).signing_key()


def test_a_store_that_keeps_nothing_is_an_error():
    store = Store()
    store.forgets = True
    with pytest.raises(StoreUnavailable, match="was not kept by a test"):
        KeyRing(store, PROVIDER).signing_key()


@pytest.mark.parametrize("ask", [KeyRing.signing_key, lambda ring: ring.sealing_key("backups")])
def test_a_reader_makes_no_key(ask):
    store = Store()
    with pytest.raises(ConfigError, match=r"there is no key for `(audit-signing|sealing-master)` in a test"):
        ask(KeyRing(store, PROVIDER, create=False))
    assert store.secrets == {}


def test_a_reader_uses_the_key_that_is_there():
    ring = KeyRing(Store(AUDIT_SIGNING=bytes(32)), PROVIDER, create=False)
    assert ring.signing_key().key_id == SigningKey(bytes(32), PROVIDER).key_id


def test_a_stored_key_of_another_length_is_refused():
    with pytest.raises(InputError, match="32 bytes long, not 31"):
        KeyRing(Store(AUDIT_SIGNING=bytes(31)), PROVIDER).signing_key()


def test_the_ring_shows_where_keys_are_and_no_key():
    ring = KeyRing(Store(AUDIT_SIGNING=b"\x5a" * 32), PROVIDER)
    ring.signing_key()
    assert repr(ring) == "KeyRing(a test)"


def test_the_newest_generation_signs_and_the_older_ones_stay():
    store = Store()
    ring = KeyRing(store, PROVIDER)
    first = ring.signing_key()
    second = ring.next_signing_key(first.key_id)
    assert [key.key_id for key in KeyRing(store, PROVIDER).signing_keys()] == [first.key_id, second.key_id]
    assert ring.signing_key().key_id == second.key_id != first.key_id


def test_a_generation_that_was_made_and_never_used_is_the_next_one():
    store = Store()
    first = KeyRing(store, PROVIDER).signing_key()
    made = [KeyRing(store, PROVIDER).next_signing_key(first.key_id).key_id for _ in range(3)]
    assert len(set(made)) == 1
    assert len(store.secrets) == 2


def test_a_store_that_takes_no_keys_has_the_next_one_put_there():
    store = ReadOnly(AUDIT_SIGNING=b"\x01" * 32)
    ring = KeyRing(store, PROVIDER)
    current = ring.signing_key().key_id
    with pytest.raises(ConfigError, match="takes none"):
        ring.next_signing_key(current)
    store.secrets[KeyPurpose.AUDIT_SIGNING, 2] = b"\x02" * 32
    assert ring.next_signing_key(current).key_id == SigningKey(b"\x02" * 32, PROVIDER).key_id


def test_no_key_follows_one_that_is_not_there():
    with pytest.raises(ConfigError, match="is not in a test"):
        KeyRing(Store(), PROVIDER).next_signing_key("00" * 8)

"""What every KeyStore does, whatever keeps the keys."""

import base64

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

from symbi.adapters.keys import EnvironmentKeyStore, FileKeyStore, KeyringKeyStore
from symbi.crypto.keys import KeyPurpose, KeyRing
from symbi.crypto.provider import open_provider
from symbi.errors import ConfigError, InputError, StoreUnavailable

SECRETS = {purpose: bytes((number,)) * 32 for number, purpose in enumerate(KeyPurpose, 1)}


class MemoryKeyring(KeyringBackend):
    """A keyring that keeps entries as long as the test runs."""

    priority = 1

    def __init__(self):
        super().__init__()
        self.entries = {}

    def get_password(self, service, username):
        return self.entries.get((service, username))

    def set_password(self, service, username, password):
        self.entries[service, username] = password

    def delete_password(self, service, username):
        if self.entries.pop((service, username), None) is None:
            raise PasswordDeleteError


class FileRig:
    takes = True

    def __init__(self, folder):
        self.folder = folder / "data" / "keys"

    def store(self):
        return FileKeyStore(self.folder)

    def put(self, purpose, secret, suffix=""):
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{purpose}{suffix and f'.{suffix}'}.key"
        path.write_bytes(secret)
        path.chmod(0o600)


class EnvironmentRig:
    takes = False

    def __init__(self):
        self.environment = {"PATH": "/bin"}

    def store(self):
        return EnvironmentKeyStore(self.environment)

    def put(self, purpose, secret, suffix=""):
        self.environment[f"SYMBI_KEY_{purpose.name}{suffix and f'_{suffix}'}"] = base64.b64encode(secret).decode()


class KeyringRig:
    takes = True

    def __init__(self):
        self.keyring = MemoryKeyring()
        keyring.set_keyring(self.keyring)

    def store(self):
        return KeyringKeyStore()

    def put(self, purpose, secret, suffix=""):
        self.keyring.set_password("symbi", f"{purpose}{suffix and f'.{suffix}'}", base64.b64encode(secret).decode())


@pytest.fixture(autouse=True)
def forget_keyring(monkeypatch):
    """The keyring that a test sets is gone after it."""
    monkeypatch.setattr("keyring.core._keyring_backend", None)


@pytest.fixture(params=["file", "environment", "keyring"])
def rig(request, tmp_path):
    return {"file": lambda: FileRig(tmp_path), "environment": EnvironmentRig, "keyring": KeyringRig}[request.param]()


@pytest.mark.parametrize("purpose", KeyPurpose)
def test_what_was_never_stored_is_none(rig, purpose):
    assert rig.store().load(purpose) is None


def test_each_purpose_has_its_own_key(rig):
    for purpose, secret in SECRETS.items():
        rig.put(purpose, secret)
    assert {purpose: rig.store().load(purpose) for purpose in KeyPurpose} == SECRETS


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64, 4096])
def test_a_key_of_another_length_is_refused(rig, length):
    rig.put(KeyPurpose.AUDIT_SIGNING, bytes(length))
    with pytest.raises(ConfigError, match="a key has 32 bytes") as caught:
        rig.store().load(KeyPurpose.AUDIT_SIGNING)
    assert caught.value.code == "config.key_malformed"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_not_stored(rig, length):
    with pytest.raises(InputError):
        rig.store().store(KeyPurpose.AUDIT_SIGNING, bytes(length))
    assert rig.store().load(KeyPurpose.AUDIT_SIGNING) is None


def test_a_stored_key_is_there_for_the_next_process(rig):
    if not rig.takes:
        with pytest.raises(ConfigError, match="none can be put there") as caught:
            rig.store().store(KeyPurpose.AUDIT_SIGNING, bytes(32))
        assert "SYMBI_KEY_AUDIT_SIGNING" in caught.value.hint
        assert rig.store().load(KeyPurpose.AUDIT_SIGNING) is None
        return
    for purpose, secret in SECRETS.items():
        rig.store().store(purpose, secret)
    assert {purpose: rig.store().load(purpose) for purpose in KeyPurpose} == SECRETS


def test_a_key_is_never_replaced(rig):
    rig.put(KeyPurpose.AUDIT_SIGNING, b"\x01" * 32)
    with pytest.raises(ConfigError, match="is not replaced") as caught:
        rig.store().store(KeyPurpose.AUDIT_SIGNING, b"\x02" * 32)
    assert caught.value.code == "config.key_exists"
    assert rig.store().load(KeyPurpose.AUDIT_SIGNING) == b"\x01" * 32


def test_each_generation_has_its_own_key(rig):
    rig.put(KeyPurpose.AUDIT_SIGNING, b"\x01" * 32)
    assert rig.store().load(KeyPurpose.AUDIT_SIGNING, 2) is None
    rig.put(KeyPurpose.AUDIT_SIGNING, b"\x02" * 32, "2")
    rig.put(KeyPurpose.AUDIT_SIGNING, b"\x03" * 31, "3")
    assert [rig.store().load(KeyPurpose.AUDIT_SIGNING, number) for number in (1, 2)] == [b"\x01" * 32, b"\x02" * 32]
    with pytest.raises(ConfigError, match="a key has 32 bytes"):
        rig.store().load(KeyPurpose.AUDIT_SIGNING, 3)


def test_a_generation_is_stored_beside_the_others_and_never_replaced(rig):
    rig.put(KeyPurpose.AUDIT_SIGNING, b"\x01" * 32)
    if not rig.takes:
        with pytest.raises(ConfigError, match="none can be put there") as caught:
            rig.store().store(KeyPurpose.AUDIT_SIGNING, bytes(32), 2)
        assert "SYMBI_KEY_AUDIT_SIGNING_2" in caught.value.hint
        return
    rig.store().store(KeyPurpose.AUDIT_SIGNING, b"\x02" * 32, 2)
    with pytest.raises(ConfigError, match="is not replaced"):
        rig.store().store(KeyPurpose.AUDIT_SIGNING, b"\x03" * 32, 2)
    assert [rig.store().load(KeyPurpose.AUDIT_SIGNING, number) for number in (1, 2)] == [b"\x01" * 32, b"\x02" * 32]


def test_a_ring_finds_the_same_keys_again(rig):
    if not rig.takes:
        for purpose, secret in SECRETS.items():
            rig.put(purpose, secret)
    first, second = (KeyRing(rig.store(), open_provider()) for _ in range(2))
    assert first.signing_key().key_id == second.signing_key().key_id
    assert second.sealing_key("a").open(first.sealing_key("a").seal(b"text", b""), b"") == b"text"


def test_no_error_and_no_description_shows_a_key(rig):
    secret = b"\x5a" * 32
    rig.put(KeyPurpose.AUDIT_SIGNING, secret)
    rig.put(KeyPurpose.SEALING_MASTER, secret[:-1])
    store = rig.store()
    shown = [store.describe(), repr(store)]
    for act in (lambda: store.store(KeyPurpose.AUDIT_SIGNING, secret), lambda: store.load(KeyPurpose.SEALING_MASTER)):
        with pytest.raises(ConfigError) as caught:
            act()
        shown.append(f"{caught.value} {caught.value!r} {caught.value.hint} {caught.value.fields}")
    for text in shown:
        for form in ("ZZZZ", "Wlpa", "5a5a", "\\x5a"):
            assert form not in text


# --- the environment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "not base64!", "====", "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo", "ü" * 44])
def test_a_variable_that_is_no_key_is_refused(text):
    with pytest.raises(ConfigError, match="`SYMBI_KEY_AUDIT_SIGNING`") as caught:
        EnvironmentKeyStore({"SYMBI_KEY_AUDIT_SIGNING": text}).load(KeyPurpose.AUDIT_SIGNING)
    assert caught.value.code == "config.key_malformed"


# --- the keyring ----------------------------------------------------------------------------------------------------


class PlaintextKeyring(MemoryKeyring):
    """Named as those are that write to a file in the clear."""


class Chain(MemoryKeyring):
    """A keyring that asks others in turn."""

    def __init__(self, *backends):
        super().__init__()
        self.backends = backends


def unfit():
    from keyring.backends import fail, null  # noqa: PLC0415 - importing them early would change what keyring finds

    class Disguised(null.Keyring):
        pass

    alternative = type("EncryptedKeyring", (MemoryKeyring,), {"__module__": "keyrings.alt.file"})
    return {
        "fail": fail.Keyring,
        "null": null.Keyring,
        "subclass": Disguised,
        "plain-text": PlaintextKeyring,
        "alternative": alternative,
        "chain": lambda: Chain(MemoryKeyring(), PlaintextKeyring()),
        "empty-chain": Chain,
    }


@pytest.mark.parametrize("kind", ["fail", "null", "subclass", "plain-text", "alternative", "chain", "empty-chain"])
def test_a_keyring_that_keeps_nothing_safe_is_refused(kind):
    keyring.set_keyring(unfit()[kind]())
    with pytest.raises(ConfigError, match="does not keep secrets safe") as caught:
        KeyringKeyStore()
    assert caught.value.code == "config.keyring"


def test_a_chain_of_safe_keyrings_is_taken():
    keyring.set_keyring(Chain(MemoryKeyring()))
    KeyringKeyStore().store(KeyPurpose.AUDIT_SIGNING, bytes(32))


@pytest.mark.parametrize("error", [keyring.errors.KeyringLocked("locked"), OSError("the bus is gone"), ValueError("?")])
@pytest.mark.parametrize("method", ["get_password", "set_password"])
def test_a_locked_or_broken_keyring_is_unavailable(monkeypatch, method, error):
    rig = KeyringRig()
    store = rig.store()

    def fail(*arguments):
        raise error

    monkeypatch.setattr(rig.keyring, method, fail)
    with pytest.raises(StoreUnavailable, match=f"the keyring: {type(error).__name__}") as caught:
        store.store(KeyPurpose.AUDIT_SIGNING, bytes(32))
    assert caught.value.code == "unavailable.keys"


def test_an_entry_that_is_no_key_is_refused():
    rig = KeyringRig()
    rig.keyring.set_password("symbi", "audit-signing", "correct horse battery staple")
    with pytest.raises(ConfigError, match="is not base64"):
        rig.store().load(KeyPurpose.AUDIT_SIGNING)

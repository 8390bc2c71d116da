"""The secret source port on every adapter."""

import os

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from symbi.adapters.secrets import EnvironmentSecrets, FileSecrets, KeyringSecrets, SecretChain
from symbi.clock import SystemClock
from symbi.errors import PermitRefused, Unavailable
from symbi.guard.action import ConnectServer, InvokeTool, ReadClock, ToolRef
from symbi.guard.permit import Authority, Permit
from symbi.types import AgentId, EffectId, Principal, ToolName

PRINCIPAL = Principal(AgentId("contract"))
VALUES = {"oncall/api-token": "tok-12345", "db": "with = sign and # in it", "umlaut": "größe"}
UNNAMED = "other"


class MemoryKeyring(KeyringBackend):
    """A keyring of the library's own kind, so that no test touches the machine's."""

    priority = 1

    def __init__(self, held, *, locked=False):
        super().__init__()
        self.held = held
        self.locked = locked

    def get_password(self, service, username):
        if self.locked:
            raise KeyringLocked
        return self.held.get((service, username))

    def set_password(self, service, username, password):
        raise AssertionError("nothing is ever stored")


@pytest.fixture
def authority():
    return Authority(SystemClock())


@pytest.fixture
def use_keyring():
    before = keyring.get_keyring()
    yield keyring.set_keyring
    keyring.set_keyring(before)


def private_file(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


LINES = "".join(f"{path} = {value}\n" for path, value in {**VALUES, UNNAMED: "unnamed"}.items())
TOML = '"db" = "with = sign and # in it"\numlaut = "größe"\nother = "unnamed"\n[oncall]\napi-token = "tok-12345"\n'


def make(kind, authority, folder, use_keyring):
    everything = {**VALUES, UNNAMED: "unnamed"}
    match kind:
        case "environment":
            names = {"oncall/api-token": "ONCALL_API_TOKEN", "db": "DB", "umlaut": "UMLAUT", UNNAMED: "OTHER"}
            return EnvironmentSecrets(authority, {f"SYMBI_SECRET_{names[p]}": v for p, v in everything.items()})
        case "lines":
            return FileSecrets(authority, private_file(folder, "secrets", f"# comment\n\n{LINES}"))
        case "toml":
            return FileSecrets(authority, private_file(folder, "secrets.toml", TOML))
        case "keyring":
            use_keyring(MemoryKeyring({("symbi.secrets", path): value for path, value in everything.items()}))
            return KeyringSecrets(authority)
        case "chain":
            first = EnvironmentSecrets(authority, {"SYMBI_SECRET_DB": VALUES["db"]})
            return SecretChain([first, FileSecrets(authority, private_file(folder, "secrets.toml", TOML))])


@pytest.fixture(params=["environment", "lines", "toml", "keyring", "chain"])
def source(request, authority, tmp_path, use_keyring):
    return make(request.param, authority, tmp_path, use_keyring)


def invoke(*paths):
    return InvokeTool(principal=PRINCIPAL, tool=ToolRef(ToolName("s.t"), "s", "", {}), values={}, secrets=paths)


def test_gives_the_value_of_a_path_that_the_action_names(source, authority):
    permit = authority.mint(EffectId("e"), invoke(*VALUES))
    assert {path: source.resolve(permit, path) for path in VALUES} == VALUES
    assert authority.uses_left(permit) == 1


def test_serves_the_start_of_a_server_too(source, authority):
    action = ConnectServer(principal=PRINCIPAL, server="s", command="c", secrets=("db",))
    assert source.resolve(authority.mint(EffectId("e"), action), "db") == VALUES["db"]


def test_has_none_for_a_path_that_it_does_not_hold(source, authority):
    assert source.resolve(authority.mint(EffectId("e"), invoke("no/such")), "no/such") is None


def test_refuses_a_path_that_the_action_does_not_name(source, authority):
    with pytest.raises(PermitRefused):
        source.resolve(authority.mint(EffectId("e"), invoke("db")), UNNAMED)


def test_refuses_permits_that_are_not_live_or_not_for_tools(source, authority):
    closed = authority.mint(EffectId("e"), invoke("db"))
    authority.close(closed)
    other = authority.mint(EffectId("e"), ReadClock(principal=PRINCIPAL))
    for permit in (closed, Permit(EffectId("forged"), invoke("db")), other):
        with pytest.raises(PermitRefused):
            source.resolve(permit, "db")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666])
def test_a_file_that_others_can_open_is_refused(authority, tmp_path, mode):
    path = private_file(tmp_path, "secrets", LINES)
    path.chmod(mode)
    with pytest.raises(Unavailable, match="can be read by others") as caught:
        FileSecrets(authority, path).resolve(authority.mint(EffectId("e"), invoke("db")), "db")
    assert "chmod 600" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("secrets", "db = hidden-value\nno equals hidden-value\n"),
        ("secrets", "db = hidden-value\ndb = hidden-value\n"),
        ("secrets.toml", 'db = "hidden-value'),
        ("secrets.toml", 'hidden-value = 3\ndb = "x"'),
        ("secrets.toml", '"a/b" = "hidden-value"\n[a]\nb = "hidden-value"'),
        ("secrets", "x" * 2_000_000),
    ],
)
def test_a_malformed_file_is_refused_without_quoting_a_value(authority, tmp_path, name, text):
    path = private_file(tmp_path, name, text)
    with pytest.raises(Unavailable) as caught:
        FileSecrets(authority, path).resolve(authority.mint(EffectId("e"), invoke("db")), "db")
    assert text.count("hidden-value = 3") or "hidden-value" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_folder_or_pipe_in_place_of_the_file_is_refused_at_once(authority, tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(Unavailable):
            FileSecrets(authority, tmp_path / name).resolve(authority.mint(EffectId("e"), invoke("db")), "db")


def test_a_missing_file_has_no_secrets(authority, tmp_path):
    source = FileSecrets(authority, tmp_path / "none")
    assert source.resolve(authority.mint(EffectId("e"), invoke("db")), "db") is None


def test_a_keyring_that_does_not_open_is_unavailable(authority, use_keyring):
    use_keyring(MemoryKeyring({}, locked=True))
    with pytest.raises(Unavailable, match="keyring"):
        KeyringSecrets(authority).resolve(authority.mint(EffectId("e"), invoke("db")), "db")


def test_the_keyring_of_secrets_is_not_that_of_the_runtimes_keys(authority, use_keyring):
    use_keyring(MemoryKeyring({("symbi", "audit"): "the runtime's own key"}))
    assert KeyringSecrets(authority).resolve(authority.mint(EffectId("e"), invoke("audit")), "audit") is None


def test_a_chain_ends_at_the_first_value_and_at_a_source_that_fails(authority, tmp_path):
    open_file = private_file(tmp_path, "secrets", LINES)
    open_file.chmod(0o644)
    environment = EnvironmentSecrets(authority, {"SYMBI_SECRET_DB": "first"})
    chain = SecretChain([environment, FileSecrets(authority, open_file)])
    permit = authority.mint(EffectId("e"), invoke("db", "umlaut"))
    assert chain.resolve(permit, "db") == "first"
    with pytest.raises(Unavailable):
        chain.resolve(permit, "umlaut")


def test_an_empty_value_is_none(authority, tmp_path):
    permit = authority.mint(EffectId("e"), invoke("db"))
    assert EnvironmentSecrets(authority, {"SYMBI_SECRET_DB": ""}).resolve(permit, "db") is None
    assert FileSecrets(authority, private_file(tmp_path, "secrets", "db =\n")).resolve(permit, "db") is None

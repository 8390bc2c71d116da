"""Where a witness keeps heads: files and Git; and a witness on another host, over HTTP."""

import os
import subprocess
from dataclasses import replace

import pytest

from symbi.adapters.witness import GitWitness, HttpWitness, WitnessFile, witness_key
from symbi.audit.checkpoint import Checkpoint, Note, cosign, parse_note, seal_checkpoint, verify_cosignature
from symbi.audit.witness import WitnessKey, parse_witness_file, verify_by
from symbi.crypto.merkle import consistency_proof, leaf_hash, node_hash, root_of
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import ChainBroken, InputError, SignatureInvalid, Unavailable
from symbi.testing.witness_server import WitnessServer, serve_witness

PROVIDER = open_provider()
KEY, OWN, OTHER = (SigningKey(bytes([number]) * 32, PROVIDER) for number in (1, 2, 3))
KEYS = {KEY.key_id: KEY.verifying_key()}
NAME = "witness.example/w1"
ORIGIN = "symbi.trail/e1"
TIME = "2026-01-02T03:04:05.000000006Z"


def node(level, index):
    return (
        leaf_hash(b"%d" % index)
        if level == 0
        else node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))
    )


def other(level, index):
    return (
        leaf_hash(b"other %d" % index)
        if level == 0
        else node_hash(other(level - 1, 2 * index), other(level - 1, 2 * index + 1))
    )


def head(size, nodes=node, origin=ORIGIN):
    return parse_note(seal_checkpoint(Checkpoint(origin, size, root_of(size, nodes), "ab" * 32, TIME), KEY))


def seen(size, **keywords):
    return cosign(head(size, **keywords), NAME, OWN, 1_767_322_999)


def proves(size, nodes=node):
    return lambda old: consistency_proof(old, size, nodes)


# --- files ------------------------------------------------------------------------------------


def test_heads_are_kept_in_the_order_in_which_they_were_seen(tmp_path):
    file = WitnessFile(tmp_path / "heads.witness")
    with file.held(ORIGIN) as path:
        assert file.seen(path, ORIGIN) is None
        file.keep(path, seen(3))
        file.keep(path, seen(9))
        assert file.seen(path, ORIGIN) == seen(9)
    assert parse_witness_file((tmp_path / "heads.witness").read_bytes()) == [seen(3), seen(9)]
    assert [file.name for file in tmp_path.iterdir()] == ["heads.witness"]


def test_a_folder_has_a_file_for_each_trail_and_a_further_one_is_asked_for(tmp_path):
    file = WitnessFile(tmp_path)
    assert file.seen(file.path_for(ORIGIN), ORIGIN) is None
    file.keep(file.path_for(ORIGIN), seen(3))
    new = file.path_for("symbi.trail/../e2")
    assert new.parent == tmp_path
    with pytest.raises(ChainBroken, match="1 other trail,"):
        file.seen(new, "symbi.trail/../e2")
    assert file.seen(new, "symbi.trail/../e2", new_trail=True) is None


def test_a_file_of_another_trail_is_refused(tmp_path):
    file = WitnessFile(tmp_path / "heads.witness")
    file.keep(tmp_path / "heads.witness", seen(3))
    with pytest.raises(ChainBroken, match="knows the trail"):
        file.seen(tmp_path / "heads.witness", "symbi.trail/e2", new_trail=True)


def test_one_witness_at_a_time(tmp_path):
    file = WitnessFile(tmp_path / "heads.witness")
    with file.held(ORIGIN), pytest.raises(InputError, match="another witness"), file.held(ORIGIN):
        pass


@pytest.mark.parametrize("where", ["absent/heads", "file/heads"])
def test_a_file_that_cannot_be_used_is_named(tmp_path, where):
    (tmp_path / "file").write_text("")
    file = WitnessFile(tmp_path / where)
    with pytest.raises(InputError, match="cannot use the witness's file"), file.held(ORIGIN):
        pass
    with pytest.raises(InputError):
        file.keep(tmp_path / where, seen(3))


def test_a_file_that_was_cut_off_is_not_built_upon(tmp_path):
    path = tmp_path / "heads.witness"
    file = WitnessFile(path)
    file.keep(path, seen(3))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ChainBroken):
        file.seen(path, ORIGIN)


# --- Git --------------------------------------------------------------------------------------


def git(folder, *arguments):
    done = subprocess.run(("git", *arguments), cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    return folder


def test_each_head_is_a_commit(repository):
    witness = GitWitness(repository)
    for size in (3, 9):
        with witness.held(ORIGIN) as path:
            witness.keep(path, seen(size))
            witness.publish(path, NAME)
            witness.publish(path, NAME)  # nothing new is no commit
    assert git(repository, "log", "--format=%an %s").splitlines() == [f"{NAME} {NAME} saw a head"] * 2
    assert git(repository, "status", "--porcelain") == ""


def test_a_commit_that_failed_is_made_the_next_time(repository):
    witness = GitWitness(repository)
    path = witness.path_for(ORIGIN)
    witness.keep(path, seen(3))
    (repository / ".git/index.lock").write_text("")
    with pytest.raises(InputError, match="git add"):
        witness.publish(path, NAME)
    assert witness.seen(path, ORIGIN) == seen(3)
    (repository / ".git/index.lock").unlink()
    witness.publish(path, NAME)
    assert git(repository, "log", "--format=%s").splitlines() == [f"{NAME} saw a head"]


def test_nothing_else_is_committed_and_nothing_pushed_unless_asked_for(repository, tmp_path):
    away = tmp_path / "away.git"
    git(tmp_path, "init", "--quiet", "--bare", str(away))
    git(repository, "remote", "add", "origin", str(away))
    git(repository, "checkout", "-q", "-b", "heads")
    git(repository, "config", "push.default", "current")
    (repository / "other").write_text("mine")
    git(repository, "add", "other")
    witness = GitWitness(repository)
    witness.keep(witness.path_for(ORIGIN), seen(3))
    witness.publish(witness.path_for(ORIGIN), NAME)
    assert git(repository, "status", "--porcelain") == "A  other\n"
    assert git(away, "branch") == ""
    GitWitness(repository, push=True).publish(witness.path_for(ORIGIN), NAME)
    assert git(away, "branch").split() == ["heads"]


def test_a_folder_that_is_no_repository_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="not in a Git repository"):
            GitWitness(folder)


# --- another host -----------------------------------------------------------------------------


@pytest.fixture
def server():
    with serve_witness(WitnessServer(NAME, OWN, KEYS, 1_767_322_999)) as served:
        yield served


def test_a_witness_on_another_host_countersigns_what_continues(server):
    ask = HttpWitness(server.url, server.witness)
    first, unix_s = ask.submit(head(3), 0, proves(3))
    assert unix_s == verify_cosignature(first, NAME, OWN.verifying_key()) == 1_767_322_999
    second, _ = ask.submit(head(9), 3, proves(9))
    verify_by(second, KEYS)
    assert server.heads[ORIGIN].checkpoint.size == 9
    assert server.asked == 2


def test_who_does_not_know_what_the_witness_saw_is_told(server):
    ask = HttpWitness(server.url, server.witness)
    ask.submit(head(3), 0, proves(3))
    ask.submit(head(9), 0, proves(9))
    assert (server.heads[ORIGIN].checkpoint.size, server.asked) == (9, 3)


def test_the_same_head_is_countersigned_again(server):
    ask = HttpWitness(server.url, server.witness)
    assert ask.submit(head(9), 0, proves(9)) == ask.submit(head(9), 0, proves(9))


@pytest.mark.parametrize("size", [9, 12])
def test_a_rewritten_history_is_refused(server, size):
    ask = HttpWitness(server.url, server.witness)
    ask.submit(head(9), 0, proves(9))
    with pytest.raises(ChainBroken) as refused:
        ask.submit(head(size, other), 9, proves(size, other))
    assert refused.value.fields["reason"] == "fork"
    assert server.heads[ORIGIN].checkpoint.root == root_of(9, node)


def test_a_rolled_back_trail_is_refused(server):
    ask = HttpWitness(server.url, server.witness)
    ask.submit(head(9), 0, proves(9))
    with pytest.raises(ChainBroken, match="seen a head at event 9, and this one is at event 3") as refused:
        ask.submit(head(3), 0, proves(3))
    assert refused.value.fields["reason"] == "rollback"


def test_a_head_that_the_trail_did_not_sign_is_refused(server):
    note = head(3)
    forged = Note(note.checkpoint, (replace(note.signatures[0], signature=bytes(64)),))
    with pytest.raises(Unavailable, match="403"):
        HttpWitness(server.url, server.witness).submit(forged, 0, proves(3))


def test_a_cosignature_by_another_key_does_not_count(server):
    stranger = WitnessKey(NAME, OTHER.verifying_key())
    with pytest.raises(SignatureInvalid):
        HttpWitness(server.url, stranger).submit(head(3), 0, proves(3))


@pytest.mark.parametrize(("path", "said"), [("/elsewhere", "404"), ("", None)])
def test_a_witness_that_is_not_there_is_told(server, path, said):
    url = server.url + path if said else "http://127.0.0.1:9"
    with pytest.raises(Unavailable, match=said or "cannot be reached"):
        HttpWitness(url, server.witness).submit(head(3), 0, proves(3))


# --- the witness's own key ----------------------------------------------------------------------


def test_a_key_is_made_at_the_first_use_and_closed_to_others(tmp_path):
    path = tmp_path / "witness.key"
    mask = os.umask(0o777)
    try:
        key = witness_key(path, PROVIDER)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o600
    assert witness_key(path, PROVIDER).key_id == key.key_id


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [("ab" * 32, 0o640, "others"), ("ab", 0o600, "no key"), ("AB" * 32 + "00", 0o600, "no key")],
)
def test_a_key_that_is_open_or_none_is_refused(tmp_path, text, mode, said):
    path = tmp_path / "witness.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(InputError, match=said):
        witness_key(path, PROVIDER)


def test_a_key_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot use the key"):
        witness_key(tmp_path / "absent" / "witness.key", PROVIDER)

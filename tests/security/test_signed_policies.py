"""Signed policies under attack: nobody without a trusted key changes, adds, removes, swaps or puts back a file."""

import json
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.adapters.policy_files import PolicyFolders
from symbi.adapters.sqlite import SqliteStore
from symbi.audit.event import AuditEventType as T
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import InputError, SignatureInvalid
from symbi.runtime.policies import Cause, PolicyBook, PolicyTerms
from symbi.runtime.policy_signing import MANIFEST_NAME, Seal, check_succession, sign_bundle, verify_bundle
from symbi.runtime.policy_watch import PolicyWatch
from symbi.runtime.port import Bundle, PolicyFile
from symbi.testing.gate import DENY_ALL, open_gate

PROVIDER = open_provider()
KEY = SigningKey(b"\x01" * 32, PROVIDER)
STRANGER = SigningKey(b"\x02" * 32, PROVIDER)
TRUSTED = {KEY.key_id: KEY.verifying_key()}
TERMS = PolicyTerms(require_signed=True, trusted=TRUSTED)
PERMIT = '@id("p") permit (principal, action == Action::"ReadClock", resource);\n'
FORBID = '@id("f") forbid (principal, action, resource);\n'
ALL = '@id("all") permit (principal, action, resource);\n'


def bundle(**files: str) -> Bundle:
    listed = files or {"a": PERMIT, "b": FORBID}
    return Bundle(
        "policies", tuple(PolicyFile(f"{n}.cedar", f"policies/{n}.cedar", t.encode()) for n, t in listed.items())
    )


def signed(one: Bundle, key=KEY, *, serial=1, name="prod") -> Bundle:
    return replace(one, manifest=sign_bundle(one, key, name=name, serial=serial))


def with_members(one: Bundle, **changes) -> Bundle:
    members = dict(parse_canonical(one.manifest)) | changes
    return replace(one, manifest=canonical_json({k: v for k, v in members.items() if v is not ...}))


def test_what_was_signed_verifies():
    seal = verify_bundle(signed(bundle(), serial=7), TRUSTED)
    assert (seal.path, seal.name, seal.serial, seal.key_id) == ("policies", "prod", 7, KEY.key_id)


GOOD = signed(bundle())
ATTACKS = {
    "no manifest": replace(GOOD, manifest=None),
    "empty manifest": replace(GOOD, manifest=b""),
    "not JSON": replace(GOOD, manifest=b"{"),
    "a list": replace(GOOD, manifest=b"[]"),
    "white space": replace(GOOD, manifest=GOOD.manifest + b"\n"),
    "a stranger's key": signed(bundle(), STRANGER),
    "a stranger under our key's id": with_members(signed(bundle(), STRANGER), key_id=KEY.key_id),
    "a file changed": replace(GOOD, files=(replace(GOOD.files[0], data=ALL.encode()), GOOD.files[1])),
    "a file more": replace(GOOD, files=(*GOOD.files, PolicyFile("c.cedar", "policies/c.cedar", ALL.encode()))),
    "a file less": replace(GOOD, files=GOOD.files[:1]),
    "no file": replace(GOOD, files=()),
    "two files swapped": replace(
        GOOD, files=tuple(replace(f, data=o.data) for f, o in zip(GOOD.files, reversed(GOOD.files), strict=True))
    ),
    "a file renamed": replace(GOOD, files=(replace(GOOD.files[0], name="z.cedar"), GOOD.files[1])),
    "digest and file changed": with_members(
        replace(GOOD, files=(replace(GOOD.files[0], data=ALL.encode()), GOOD.files[1])),
        files=dict(parse_canonical(sign_bundle(bundle(a=ALL, b=FORBID), KEY, name="x", serial=1)))["files"],
    ),
    "the serial raised": with_members(GOOD, serial=99),
    "the set renamed": with_members(GOOD, set="other"),
    "another format": with_members(GOOD, format="symbi/policies/2"),
    "a member less": with_members(GOOD, serial=...),
    "a member more": with_members(GOOD, note="x"),
    "the serial a text": with_members(GOOD, serial="1"),
    "the serial true": with_members(GOOD, serial=True),
    "the serial zero": with_members(GOOD, serial=0),
    "the serial a float": with_members(GOOD, serial=1.5),
    "files a list": with_members(GOOD, files=[]),
    "a digest in capitals": with_members(GOOD, files={"a.cedar": "A" * 64}),
    "a short signature": with_members(GOOD, signature="00"),
    "a signature of zeros": with_members(GOOD, signature="0" * 128),
    "the signature of another domain": with_members(
        GOOD,
        signature=KEY.sign(
            "audit.head", canonical_json({k: v for k, v in parse_canonical(GOOD.manifest).items() if k != "signature"})
        ).hex(),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_anything_else_is_refused(attack):
    with pytest.raises(SignatureInvalid, match="`policies` are refused"):
        verify_bundle(attack, TRUSTED)


def test_nothing_is_trusted_where_no_key_is():
    with pytest.raises(SignatureInvalid, match="not trusted"):
        verify_bundle(GOOD, {})


@given(st.integers(0, len(GOOD.manifest) - 1), st.integers(1, 255))
def test_no_byte_of_a_manifest_can_be_changed(at, mask):
    data = bytearray(GOOD.manifest)
    data[at] ^= mask
    with pytest.raises(SignatureInvalid):
        verify_bundle(replace(GOOD, manifest=bytes(data)), TRUSTED)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.binary(max_size=4), max_size=3),
       st.dictionaries(st.text("abc", min_size=1, max_size=2), st.binary(max_size=4), max_size=3))  # fmt: skip
def test_a_signature_is_of_exactly_one_set_of_files(first, second):
    one, other = (
        Bundle("policies", tuple(PolicyFile(name, name, data) for name, data in sorted(files.items())))
        for files in (first, second)
    )
    manifest = sign_bundle(one, KEY, name="s", serial=1)
    if first == second:
        verify_bundle(replace(other, manifest=manifest), TRUSTED)
    else:
        with pytest.raises(SignatureInvalid):
            verify_bundle(replace(other, manifest=manifest), TRUSTED)


@pytest.mark.parametrize(("name", "serial"), [("", 1), ("a/b", 1), ("x" * 65, 1), ("a", 0), ("a", 2**53)])
def test_what_cannot_stand_in_a_manifest_is_not_signed(name, serial):
    with pytest.raises(InputError):
        sign_bundle(bundle(), KEY, name=name, serial=serial)


# --- succession -------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_older_set_is_refused_also_after_a_restart_and_under_another_path(tmp_path):
    old, new = signed(bundle(a=ALL), serial=3), signed(bundle(a=PERMIT), serial=4)
    async with open_gate(DENY_ALL, folder=tmp_path) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, TERMS)
        await book.take_up([old], Cause.START)
        await book.take_up([new])
        with pytest.raises(SignatureInvalid, match="serial 3 is below 4"):
            await book.take_up([old])
        assert [p.id for p in book.current.policies] == ["symbi.canary", "p"]
    async with open_gate(DENY_ALL, folder=tmp_path) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, TERMS)
        with pytest.raises(SignatureInvalid, match="serial 3 is below 4"):
            await book.take_up([old], Cause.START)
        with pytest.raises(SignatureInvalid, match="serial 3 is below 4"):
            await book.take_up([replace(old, path="elsewhere")], Cause.OPERATOR)
        with pytest.raises(SignatureInvalid, match="in force with other files"):
            await book.take_up([signed(bundle(a=ALL), serial=4)], Cause.START)
        assert [p.id for p in book.current.policies] == ["symbi.canary"]
        await book.take_up([new], Cause.START)  # the same again, after a restart
        signatures = [e.details["signatures"] for e in gate.events() if e.event_type == T.POLICY_CHANGED][-1]
        assert signatures == [{"path": "policies", "set": "prod", "serial": 4, "key_id": KEY.key_id}]


def test_a_path_keeps_its_set_and_no_set_stands_at_two_paths():
    with SqliteStore(None) as store, store.transaction():
        store.put_policy_note("path:policies", "prod")
        test = Seal("policies", "test", 1, KEY.key_id, "d" * 64)
        with pytest.raises(SignatureInvalid, match="held the set `prod`"):
            check_succession([test], store)
        twins = [Seal(path, "prod", 1, KEY.key_id, "d" * 64) for path in ("policies", "more")]
        with pytest.raises(SignatureInvalid, match="so is `policies`"):
            check_succession(twins, store)


@pytest.mark.anyio
async def test_a_serial_counts_only_once_its_set_is_in_force():
    """A signed set that does not parse must not lock out the one that is in force."""
    good, broken = signed(bundle(a=PERMIT), serial=4), signed(bundle(a="permit ("), serial=9)
    async with open_gate(DENY_ALL) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, TERMS)
        await book.take_up([good], Cause.START)
        with pytest.raises(InputError):
            await book.take_up([broken])
        await book.take_up([signed(bundle(a=PERMIT), serial=5)])


# --- on disk, watched ------------------------------------------------------------------------


@asynccontextmanager
async def watched(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.cedar").write_text(PERMIT)
    (folder / "b.cedar").write_text(FORBID)
    folders = PolicyFolders(tmp_path)

    def sign(serial):
        (one,) = folders.read(["policies"])
        (folder / MANIFEST_NAME).write_bytes(sign_bundle(one, KEY, name="prod", serial=serial))

    sign(1)
    async with open_gate(DENY_ALL) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, TERMS)
        watch = PolicyWatch(book, folders, ["policies"], gate.clock, interval_s=1.0)
        await watch.use(await watch.read(), Cause.START)

        async def looks():
            for _ in range(3):
                gate.clock.advance(1)
                await watch.look()

        yield gate, folder, sign, looks


@pytest.mark.anyio
@pytest.mark.parametrize(
    "attack",
    [
        lambda folder: (folder / "a.cedar").write_text(ALL),
        lambda folder: (folder / "c.cedar").write_text(ALL),
        lambda folder: (folder / "deep").mkdir() or (folder / "deep/c.cedar").write_text(ALL),
        lambda folder: (folder / "b.cedar").unlink(),
        lambda folder: (folder / MANIFEST_NAME).unlink(),
        lambda folder: (folder / "b.cedar").write_text(""),
        lambda folder: (folder / "b.cedar").rename(folder / "b.txt"),
        lambda folder: (folder / "counters.toml").write_text("[counters]"),
        shutil.rmtree,
        lambda folder: (folder / MANIFEST_NAME).write_text(json.dumps({"serial": 9})),
    ],
    ids=["changed", "added", "added below", "removed", "unsigned", "emptied", "renamed", "toml", "all gone", "no manifest"],
)  # fmt: skip
async def test_whoever_can_write_in_the_folder_changes_nothing(tmp_path, attack):
    async with watched(tmp_path) as (gate, folder, _, looks):
        before = gate.engine.current
        attack(folder)
        await looks()
        assert gate.engine.current is before
        (refused,) = [event.details for event in gate.events() if event.event_type == T.POLICY_REFUSED]
        assert refused["code"] == "verify.signature"


@pytest.mark.anyio
async def test_what_is_signed_anew_is_taken_up_and_what_was_signed_before_is_not(tmp_path):
    async with watched(tmp_path) as (gate, folder, sign, looks):
        kept = tmp_path / "kept"
        shutil.copytree(folder, kept)
        (folder / "b.cedar").unlink()
        sign(2)
        await looks()
        assert [p.id for p in gate.engine.current.policies] == ["symbi.canary", "p"]
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        await looks()
        assert [p.id for p in gate.engine.current.policies] == ["symbi.canary", "p"]
        codes = [event.details["code"] for event in gate.events() if event.event_type == T.POLICY_REFUSED]
        assert codes == ["verify.policy_serial"]


# --- kill -9 ----------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import anyio
from symbi.adapters.policy_files import PolicyFolders
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.runtime.policies import Cause, PolicyBook, PolicyTerms
from symbi.runtime.policy_signing import sign_bundle
from symbi.testing.gate import DENY_ALL, open_gate
from dataclasses import replace

async def main(folder, when):
    key = SigningKey(b"\\x01" * 32, open_provider())
    terms = PolicyTerms(require_signed=True, trusted={key.key_id: key.verifying_key()})
    (bundle,) = PolicyFolders(folder).read(["policies"])
    signed = replace(bundle, manifest=sign_bundle(bundle, key, name="prod", serial=5))
    async with open_gate(DENY_ALL, folder=folder / "data") as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, terms)
        die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        if when == "recorded":
            gate.engine.on_change(die)
        else:
            gate.store.append = die
        await book.take_up([signed], Cause.START)

anyio.run(main, Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.anyio
@pytest.mark.parametrize(("when", "remembered"), [("recorded", True), ("before it is recorded", False)])
async def test_after_a_kill_the_serial_counts_exactly_if_the_change_is_on_the_trail(tmp_path, when, remembered):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.cedar").write_text(PERMIT)
    ended = await anyio.run_process([sys.executable, "-c", KILLED, str(tmp_path), when], check=False)
    assert ended.returncode == -signal.SIGKILL
    async with open_gate(DENY_ALL, folder=tmp_path / "data") as gate:
        recorded = [event for event in gate.events() if event.event_type == T.POLICY_CHANGED]
        assert len(recorded) == remembered
        assert (gate.store.policy_note("set:prod") is not None) is remembered
        book = PolicyBook(gate.engine, gate.log, gate.store, TERMS)
        older = signed(bundle(a=ALL), serial=4)
        if remembered:
            with pytest.raises(SignatureInvalid, match="serial 4 is below 5"):
                await book.take_up([older], Cause.START)
        else:
            await book.take_up([older], Cause.START)

"""`symbi audit rotate-key`: through the gate, by the event itself, durable before use, and whole at any crash."""

import base64
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import anyio
import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.api.client import ask_owner, connect_owner
from symbi.api.control import ControlSocket, Peer
from symbi.crypto.keys import KeyRing
from symbi.crypto.provider import open_provider
from symbi.errors import PolicyDenied
from symbi.policy.library import BASE
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

AGENT = 'agent a() { with { "done" } }'
DENY = '@id("no")\nforbid (principal, action == Action::"ControlRuntime", resource == Resource::"audit.rotate-key");\n'
CRASH = textwrap.dedent(
    """
    import os, sys, anyio
    from symbi.adapters.sqlite import store as module
    from symbi.audit import log
    from symbi.config import load_settings
    from symbi.crypto import keys
    from symbi.wiring import open_runtime

    point = sys.argv[1]
    stored, appended = keys.KeyRing.next_signing_key, module.SqliteStore.append

    def next_signing_key(ring, current):
        if point == "before the key":
            os._exit(9)
        key = stored(ring, current)
        if point == "after the key":
            os._exit(9)
        return key

    def append(store, commit):
        rotated = any(b'"event_type":"key.rotated"' in event.record for event in commit.events)
        if rotated and point == "before the event":
            os._exit(9)
        appended(store, commit)
        if rotated and point == "before the commit":
            os._exit(9)

    keys.KeyRing.next_signing_key, module.SqliteStore.append = next_signing_key, append

    async def main():
        async with open_runtime(load_settings(None)) as runtime:
            await runtime.rotate_key()
            os._exit(9)

    anyio.run(main)
    """
)


def keys_of(workshop) -> list[str]:
    ring = KeyRing(FileKeyStore(workshop.folder / ".symbi" / "keys"), open_provider(), create=False)
    return [key.key_id for key in ring.signing_keys()]


def rotate(workshop) -> dict:
    said = workshop.inside("audit", "rotate-key", "--json")
    assert said.code == 0, said.stderr
    return json.loads(said.stdout)


def test_each_rotation_hands_the_trail_on_and_all_of_it_verifies(workshop):
    said = [rotate(workshop) for _ in range(3)]
    assert [one["key_id"] for one in said] == keys_of(workshop)[1:]
    assert [one["previous"] for one in said] == keys_of(workshop)[:-1]
    trail = workshop.trail()
    rotations = [event for event in trail if event.event_type == "key.rotated"]
    assert [event.sequence for event in rotations] == [one["sequence"] for one in said]
    for event, one in zip(rotations, said, strict=True):
        assert event.key_id == one["previous"]
        assert trail[event.sequence].key_id == event.details["key_id"] == one["key_id"]
    (decision,) = [
        e for e in trail[: rotations[0].sequence] if e.details.get("resource") == "Resource::audit.rotate-key"
    ]
    assert decision.event_type == "decision.allow"


def test_what_policy_denies_rotates_nothing(workshop):
    workshop.put("policies/no.cedar", DENY)
    workshop.inside("audit", "rotate-key").error(3, "forbidden by `no`")
    assert len(keys_of(workshop)) == 1
    assert not workshop.recorded("key.rotated")
    assert workshop.recorded("decision.deny", "audit.rotate-key")


def test_keys_of_the_environment_are_put_there_by_hand(workshop, monkeypatch):
    monkeypatch.setenv("SYMBI_KEYS_STORE", "env")
    monkeypatch.setenv("SYMBI_KEY_AUDIT_SIGNING", base64.b64encode(b"1" * 32).decode())
    workshop.environ["SYMBI_KEYS_STORE"] = "env"
    workshop.inside("audit", "rotate-key").error(2, "none can be put there", "SYMBI_KEY_AUDIT_SIGNING_2")
    assert not workshop.recorded("key.rotated")
    monkeypatch.setenv("SYMBI_KEY_AUDIT_SIGNING_2", base64.b64encode(b"2" * 32).decode())
    said = rotate(workshop)
    workshop.inside("audit", "rotate-key").error(2, "SYMBI_KEY_AUDIT_SIGNING_3")
    assert {event.key_id for event in workshop.trail()} == {said["previous"], said["key_id"]}


async def ask(folder: Path) -> Any:
    def work() -> object:
        connection = connect_owner(folder / ".symbi")
        assert connection is not None
        return ask_owner(connection, "audit.rotate-key", {})

    return await anyio.to_thread.run_sync(work)


async def test_a_runtime_that_is_alive_is_asked_through_its_socket_by_the_folders_owner_alone(tmp_path):
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "p.cedar").write_text(BASE.text)
    async with open_in(tmp_path, AGENT) as running, ControlSocket(running.runtime, tmp_path / ".symbi"):
        said = [await ask(tmp_path) for _ in range(2)]
        assert said[1]["previous"] == said[0]["key_id"]
    async with (
        open_in(tmp_path, AGENT) as running,
        ControlSocket(running.runtime, tmp_path / ".symbi", peer=lambda _: Peer(os.getpid(), 65_534)),
    ):
        with pytest.raises(PolicyDenied, match="no policy permits `ControlRuntime`"):
            await ask(tmp_path)


@pytest.mark.parametrize(
    ("point", "stored", "rotated"),
    [
        ("before the key", 1, False),
        ("after the key", 2, False),
        ("before the event", 2, False),
        ("before the commit", 2, False),
        ("after the commit", 2, True),
    ],
)
def test_a_crash_at_any_point_leaves_a_trail_that_opens(workshop, point, stored, rotated):
    child = subprocess.run([sys.executable, "-c", CRASH, point], cwd=workshop.folder, check=False, capture_output=True)
    assert child.returncode == 9, child.stderr
    assert len(keys_of(workshop)) == stored
    assert workshop.recorded("key.rotated") is rotated
    said = rotate(workshop)
    assert said["previous"] == keys_of(workshop)[int(rotated)]
    assert len(keys_of(workshop)) == 2 + rotated  # one that was made and never used is the next
    assert workshop.trail()[-1].key_id == said["key_id"]


def test_the_mode_of_signing_is_changed_over_a_restart(workshop):
    for mode, signed in (("event", True), ("batch", False), ("batch", False), ("event", True)):
        workshop.environ["SYMBI_AUDIT_SIGNING"] = mode
        rotate(workshop)
        assert bool(workshop.trail()[-1].signature) is signed
    assert [e.details["signing"] for e in workshop.trail() if e.event_type == "signing.changed"] == ["batch", "event"]

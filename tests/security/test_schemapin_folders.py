"""Attacks on skill folders on disk, and on folders of documents: links, devices, traversal, sizes."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symbi.adapters.schemapin.skill_folder import read_skill_folder, write_skill_signature
from symbi.cli.main import app
from symbi.errors import InputError
from symbi.tools.schemapin import key_id, load_public_key
from symbi.tools.schemapin.listing import entries_of, hashes_of, parse_listing
from symbi.tools.schemapin.skills import SIGNATURE_FILE


@pytest.fixture
def skill(tmp_path):
    folder = tmp_path / "skill"
    (folder / "lib").mkdir(parents=True)
    (folder / "SKILL.md").write_text("# x\n")
    (folder / "lib" / "a.py").write_text("print(1)\n")
    return folder


def test_every_file_is_read_and_the_signature_apart(skill):
    (skill / SIGNATURE_FILE).write_text("{}")
    (skill / ".hidden").write_text("x")
    files, signature = read_skill_folder(skill)
    assert sorted(files) == [".hidden", "SKILL.md", "lib/a.py"]
    assert signature == b"{}"


def test_a_folder_that_the_published_package_signed_holds_and_a_changed_one_does_not(root, tmp_path):
    """Signed by PyPI's `schemapin` 1.3.0: `SkillSigner.sign_skill`."""
    folder = tmp_path / "skill"
    shutil.copytree(root / "tests" / "data" / "schemapin" / "skill", folder)
    key = root / "tests" / "data" / "schemapin" / "skill.pub.pem"
    found = json.loads(run("tools", "verify-skill", folder, "--key", key, "--json").output)
    assert (found["skill"], found["form"], found["covered"]) == ("sender", "digest", False)
    assert run("tools", "verify-skill", folder, "--key", key, "--covered").exit_code == 4
    (folder / "examples" / "usage.txt").write_text("x")
    assert run("tools", "verify-skill", folder, "--key", key).exit_code == 4


def link_to_file(folder):
    (folder / "x").symlink_to("/etc/hostname")


def link_to_folder(folder):
    (folder / "x").symlink_to("/etc", target_is_directory=True)


def link_inside(folder):
    (folder / "x").symlink_to("SKILL.md")


def signature_link(folder):
    (folder / SIGNATURE_FILE).symlink_to("/etc/hostname")


def fifo(folder):
    os.mkfifo(folder / "x")


def nested_signature(folder):
    (folder / "lib" / SIGNATURE_FILE).write_text("{}")


def no_text(folder):
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).write_text("x")


def deep(folder):
    at = folder
    for _ in range(40):
        at = at / "d"
    at.mkdir(parents=True)


@pytest.mark.parametrize(
    "attack", [link_to_file, link_to_folder, link_inside, signature_link, fifo, nested_signature, no_text, deep]
)
def test_a_folder_with_what_is_no_plain_file_is_refused(skill, attack):
    attack(skill)
    with pytest.raises(InputError) as caught:
        read_skill_folder(skill)
    assert caught.value.code == "tool.skill"
    str(caught.value).encode()


def test_a_signature_is_not_written_through_a_link(skill, tmp_path):
    target = tmp_path / "target"
    target.write_text("kept")
    (skill / SIGNATURE_FILE).symlink_to(target)
    write_skill_signature(skill, b"new")
    assert target.read_text() == "kept"
    assert not (skill / SIGNATURE_FILE).is_symlink()
    (skill / f"{SIGNATURE_FILE}.new").symlink_to(target)
    with pytest.raises(
        InputError, match=r"`\.schemapin\.sig\.new` is there, of a signing that goes on or was broken off"
    ):
        write_skill_signature(skill, b"new")
    assert target.read_text() == "kept"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def keys(tmp_path):
    for name in ("owner", "authority"):
        assert run("tools", "keygen", tmp_path / name, "--document", tmp_path / f"{name}.json").exit_code == 0
    assert (tmp_path / "owner").stat().st_mode & 0o777 == 0o600
    made = run("tools", "keygen", tmp_path / "owner")
    assert made.exit_code == 2  # nothing that exists is touched
    return tmp_path


def test_a_folder_is_signed_and_checked_offline_by_a_bundle(skill, keys):
    owner, authority, bundle = keys / "owner", keys / "authority", keys / "bundle.json"
    signed = run("tools", "sign-skill", skill, "--key", owner, "--domain", "tools.example.com", "--json")
    assert json.loads(signed.output)["file_manifest"].keys() == {"SKILL.md", "lib/a.py"}
    document = f"tools.example.com={keys / 'owner.json'}"
    assert run("tools", "sign-bundle", document, "--key", authority, "--kid", "a", "-o", bundle).exit_code == 0
    check = ("tools", "verify-skill", skill, "--bundle", bundle)
    trusted = (*check, "--authority", f"{authority}.pub", "--covered", "--json")
    found = json.loads(run(*trusted).output)
    assert (found["domain"], found["covered"], found["files"]) == ("tools.example.com", True, 2)
    assert run(*check).exit_code == 4  # no authority
    unsaid = run("tools", "verify-listing", keys / "listing.json", "--bundle", bundle)
    assert (unsaid.exit_code, "`--domain`" in unsaid.output) == (2, True)
    assert run(*check, "--authority", f"{owner}.pub").exit_code == 4
    assert run(*check, "--unsigned-bundle").exit_code == 0
    assert run(*trusted, "--domain", "Tools.Example.com").exit_code == 0
    foreign = run(*trusted, "--domain", "other.example.com")
    assert (foreign.exit_code, json.loads(foreign.output)["code"]) == (4, "verify.skill")
    (skill / "lib" / "b.py").write_text("import os\n")
    assert run(*trusted).exit_code == 4


def test_a_revoked_key_in_a_bundle_verifies_nothing(skill, keys):
    owner, authority, bundle = keys / "owner", keys / "authority", keys / "bundle.json"
    assert run("tools", "sign-skill", skill, "--key", owner, "--domain", "tools.example.com").exit_code == 0
    for there in (keys / "third.pub", keys / "third.json"):  # nothing that exists is touched, and no half is left
        there.write_text("kept")
        found = run("tools", "keygen", keys / "third", "--document", keys / "third.json")
        assert (found.exit_code, there.read_text(), (keys / "third").exists()) == (2, "kept", False)
        assert "is there already" in found.output
        there.unlink()
    fingerprint = json.loads(run("tools", "keygen", keys / "third", "--json").output)["fingerprint"]
    for revoked, code in ((fingerprint, 0), (None, 4)):
        name = revoked or key_of(keys / "owner.json")
        entries = [{"fingerprint": name, "revoked_at": "2026-01-01T00:00:00Z", "reason": "key_compromise"}]
        listed = {"schemapin_version": "1.2", "domain": "tools.example.com", "revoked_keys": entries}
        (keys / "revoked.json").write_text(json.dumps(listed))
        documents = [f"tools.example.com={keys / name}" for name in ("owner.json", "revoked.json")]
        assert run("tools", "sign-bundle", *documents, "--key", authority, "--kid", "a", "-o", bundle).exit_code == 0
        found = run("tools", "verify-skill", skill, "--bundle", bundle, "--authority", f"{authority}.pub")
        assert found.exit_code == code


def key_of(path):
    return key_id(load_public_key(json.loads(path.read_text())["public_key_pem"]))


@pytest.mark.parametrize(
    "listing",
    [
        '{"tools": [], "tools": [{"name": "a", "inputSchema": {}}]}',
        '[{"name": "a", "name": "b", "inputSchema": {}}]',
        '[{"name": "a", "inputSchema": {"type": "object", "type": "string"}}]',
    ],
)
def test_a_listing_in_which_a_name_stands_twice_is_refused(listing):
    with pytest.raises(InputError, match="every name stands once"):
        parse_listing(listing)
    for read in (entries_of, hashes_of):
        with pytest.raises(InputError, match="every name stands once"):
            read(listing.replace('"inputSchema"', '"_meta": {"schemapin": {"signature": "x"}}, "inputSchema"'))
    with pytest.raises(InputError, match="every name stands once"):
        entries_of('{"a": "MEUC", "a": "MEUD"}')


def test_a_listing_is_signed_and_checked_offline(keys):
    listing, signed = keys / "listing.json", keys / "signed.json"
    tools = [{"name": "a", "inputSchema": {"type": "object"}}, {"name": "b", "inputSchema": {"type": "object"}}]
    listing.write_text(json.dumps({"tools": tools}))
    assert run("tools", "sign", "--key", keys / "owner", "--listing", listing, "-o", signed).exit_code == 0
    check = ("tools", "verify-listing", signed, "--key", keys / "owner.pub", "--json")
    assert [row["verified"] for row in json.loads(run(*check).output)] == [True, True]
    content = json.loads(signed.read_text())
    content["tools"][0]["_meta"], content["tools"][1]["_meta"] = (
        content["tools"][1]["_meta"],
        content["tools"][0]["_meta"],
    )
    signed.write_text(json.dumps(content))
    swapped = run(*check)
    assert swapped.exit_code == 4
    assert [row["verified"] for row in json.loads(swapped.output)] == [False, False]
    assert run("tools", "verify-listing", listing, "--key", keys / "owner.pub").exit_code == 4
    assert run("tools", "sign", "--key", keys / "owner").exit_code == 2

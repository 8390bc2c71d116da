"""The vectors of docs/reference/audit-format.md: checked with the standard library and PyNaCl alone, then by both verifiers.

`python tests/unit/audit/test_vectors.py` writes them anew, which only a new version of the format may need.
"""

import base64
import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
from nacl.signing import SigningKey as NaclKey

from symbi.audit.checkpoint import COSIGNATURE_ALGORITHM, cosign, key_hash, parse_note
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.export import frontier_document, keys_document, note_name, read_frontier, read_keys, verify_folder
from symbi.audit.proof import prove_consistency, prove_inclusion, read_proof
from symbi.audit.verify import Start
from symbi.crypto.canonical import canonical_json
from symbi.crypto.merkle import leaf_hash, node_hash
from symbi.crypto.provider import open_provider
from symbi.testing.trail import TrailBuilder, fixed_signing_key
from symbi.types import AgentId

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "vectors" / "audit"
WITNESS = "witness.example/w1"
WITNESSED_S = 1_767_322_999
CUT = 5  # events before the stretch that has a frontier


def draft(number):
    details = {"n": number, "text": '"Zürich"\n', "number": 1e21, "\U0001f600": [None, True, 0.000001], "\ufb33": -0.5}
    return Draft(AuditEventType.CONFIG_RECORDED, AgentId("triage"), details, "run-1")


def made():
    """All vectors, as the package makes them."""
    first, second, witness = (fixed_signing_key(number) for number in (1, 2, 3))
    builder = TrailBuilder(first)
    events = [builder.start()]
    heads = {1: builder.checkpoint()}
    frontier = None
    steps = [draft(2), draft(3), second, draft(5), "batch", draft(7), draft(8), "event", draft(10), first]
    for step in steps:
        if isinstance(step, Draft):
            events.append(builder.add(step))
        else:
            events.append(builder.sign_by(step) if isinstance(step, str) else builder.rotate(step))
        heads[builder.size] = builder.checkpoint()
        if builder.size == CUT:
            frontier = Start(CUT, builder.frontier().hashes, builder.chain_hash)
    leaves = [leaf_hash(event.record) for event in events]

    def node(level, index):
        return leaves[index] if level == 0 else node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    notes = {size: parse_note(head) for size, head in heads.items()}
    seen = cosign(notes[8], WITNESS, witness, WITNESSED_S)
    record = json.loads(events[1].record)
    return {
        "event.json": {
            "seed": (b"\x01" * 32).hex(),
            "public_key": first.verifying_key().hex,
            "key_id": first.key_id,
            "record": events[1].record.decode(),
            "body": body_of(record),
            "previous_hash": record["previous_hash"],
            "chain_hash": record["chain_hash"],
            "signed_message": (b"symbi/sign/1\0\x0baudit.event" + bytes.fromhex(record["chain_hash"])).hex(),
            "signature": record["signature"],
            "leaf": leaves[1].hex(),
        },
        "checkpoint.json": {
            "witness_seed": (b"\x03" * 32).hex(),
            "witness_public_key": witness.verifying_key().hex,
            "note": heads[8].decode(),
            "key_hash": key_hash(builder.origin, second.verifying_key().public).hex(),
            "witness_key_hash": key_hash(WITNESS, witness.verifying_key().public, COSIGNATURE_ALGORITHM).hex(),
            "cosigned_text": f"cosignature/v1\ntime {WITNESSED_S}\n{seen.checkpoint.text()}",
            "cosigned_note": seen.to_bytes().decode(),
            "witness_file": (heads[1] + b"\n" + seen.to_bytes() + b"\n").decode(),
        },
        "trail.json": {
            "keys": json.loads(keys_document({first.key_id: first.verifying_key()})),
            "events": [event.record.decode() for event in events],
            "heads": {str(size): head.decode() for size, head in heads.items()},
            "roots": {str(size): note.checkpoint.root.hex() for size, note in notes.items()},
            "frontier": json.loads(frontier_document(frontier)),
            "keys_of_the_stretch": json.loads(keys_document({second.key_id: second.verifying_key()})),
        },
        "proofs.json": {
            "inclusion": [
                prove_inclusion(events[index].record, index, notes[size], node).to_json()
                for index, size in ((0, 1), (1, 8), (6, 8), (10, 11))
            ],
            "consistency": [
                prove_consistency(notes[old], notes[size], node).to_json()
                for old, size in ((1, 8), (3, 8), (8, 11), (11, 11))
            ],
        },
    }


def body_of(record):
    return canonical_json({name: v for name, v in record.items() if name not in {"chain_hash", "signature"}}).decode()


def vector(name):
    return json.loads((FOLDER / name).read_text("utf-8"))


def test_the_vectors_are_what_the_package_makes():
    for name, content in made().items():
        assert vector(name) == content, name


def test_an_event_is_hashed_and_signed_as_documented():
    event = vector("event.json")
    key = NaclKey(bytes.fromhex(event["seed"]))
    public = key.verify_key.encode()
    assert public.hex() == event["public_key"]
    assert hashlib.sha256(public).hexdigest()[:16] == event["key_id"]
    previous, body = bytes.fromhex(event["previous_hash"]), event["body"].encode()
    chain_hash = hashlib.sha256(b"symbi/chain/1\0" + previous + body).digest()
    assert chain_hash.hex() == event["chain_hash"]
    message = b"symbi/sign/1\0" + bytes([len("audit.event")]) + b"audit.event" + chain_hash
    assert message.hex() == event["signed_message"]
    assert key.sign(message).signature.hex() == event["signature"]
    assert hashlib.sha256(b"\0" + event["record"].encode()).hexdigest() == event["leaf"]
    assert '"number":1e+21' in event["record"]
    assert '"\U0001f600":[null,true,0.000001],"\ufb33":-0.5' in event["record"]


def test_a_checkpoint_is_signed_and_countersigned_as_documented():
    vectors = vector("checkpoint.json")
    note = vectors["cosigned_note"]
    text, _, lines = note.partition("\n\n")
    text += "\n"
    own, by_witness = ([*line.split(" ")[1:]] for line in lines.splitlines())
    second, witness = NaclKey(b"\x02" * 32), NaclKey(bytes.fromhex(vectors["witness_seed"]))
    origin = text.split("\n")[0]
    for (name, encoded), key, algorithm, signed in (
        (own, second, 1, text),
        (by_witness, witness, 4, vectors["cosigned_text"]),
    ):
        blob = base64.b64decode(encoded)
        wanted = hashlib.sha256(f"{name}\n".encode() + bytes([algorithm]) + key.verify_key.encode()).digest()[:4]
        assert blob[:4] == wanted
        key.verify_key.verify(signed.encode(), blob[-64:])
        if algorithm == 4:
            assert int.from_bytes(blob[4:12], "big") == WITNESSED_S
            assert wanted.hex() == vectors["witness_key_hash"]
        else:
            assert name == origin
            assert wanted.hex() == vectors["key_hash"]


def test_roots_are_those_of_the_rfc():
    trail = vector("trail.json")

    def root(leaves):
        if len(leaves) == 1:
            return hashlib.sha256(b"\0" + leaves[0]).digest()
        split = 1
        while split * 2 < len(leaves):
            split *= 2
        return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()

    events = [record.encode() for record in trail["events"]]
    for size, expected in trail["roots"].items():
        assert root(events[: int(size)]).hex() == expected


def written(folder, first):
    """The trail of the vectors as an export from an event on."""
    trail = vector("trail.json")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in trail["events"][first - 1 :]), "utf-8")
    for size, head in trail["heads"].items():
        if int(size) >= first:
            (folder / "checkpoints" / note_name(int(size))).write_text(head, "utf-8")
    keys = trail["keys"] if first == 1 else trail["keys_of_the_stretch"]
    (folder / "keys.json").write_text(json.dumps(keys))
    if first > 1:
        (folder / "frontier.json").write_text(json.dumps(trail["frontier"]))
    return folder


@pytest.mark.parametrize("first", [1, CUT + 1])
def test_both_verifiers_take_the_trail_of_the_vectors(tmp_path, first, capsys):
    folder = written(tmp_path / "export", first)
    witness = tmp_path / "seen.witness"
    witness.write_text(vector("checkpoint.json")["witness_file"], "utf-8")
    keys = read_keys((folder / "keys.json").read_bytes(), open_provider())
    report = verify_folder(folder, keys)
    assert (report.first, report.last, report.checkpoints) == (first, 11, 11 - first)
    spec = importlib.util.spec_from_file_location("verify_audit", ROOT / "tools" / "verify_audit.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main([str(folder), "--witness", str(witness)]) == 0
    told = capsys.readouterr().out
    assert report.root in told
    assert "seen by a witness up to event 8" in told


def test_the_frontier_of_the_vectors_is_read_and_written():
    document = vector("trail.json")["frontier"]
    assert json.loads(frontier_document(read_frontier(json.dumps(document).encode()))) == document


def test_the_proofs_of_the_vectors_hold():
    trail, proofs = vector("trail.json"), vector("proofs.json")
    both = {fixed_signing_key(number).key_id: fixed_signing_key(number).verifying_key() for number in (1, 2)}
    for document in proofs["inclusion"]:
        event = read_proof(json.dumps(document).encode()).verify(both)
        assert trail["events"][event.sequence - 1] == document["record"]
    for document in proofs["consistency"]:
        proof = read_proof(json.dumps(document).encode())
        proof.verify(both)
        assert proof.to_json() == document


def test_the_page_quotes_the_vectors():
    page = (ROOT / "docs" / "reference" / "audit-format.md").read_text("utf-8")
    event, checkpoint, trail = vector("event.json"), vector("checkpoint.json"), vector("trail.json")
    for quoted in (
        event["record"],
        event["chain_hash"],
        event["signature"],
        event["leaf"],
        event["public_key"],
        checkpoint["cosigned_note"],
        checkpoint["witness_key_hash"],
        trail["roots"]["8"],
        trail["roots"]["11"],
    ):
        assert quoted in page


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file_name, vectors in made().items():
        text = json.dumps(vectors, indent=2, ensure_ascii=False) + "\n"
        (FOLDER / file_name).write_text(text, "utf-8")

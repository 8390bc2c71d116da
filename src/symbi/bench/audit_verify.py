"""AUD-4: verification on one core and on two, in both signing modes; proofs at a million events."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final

from symbi.audit.checkpoint import Note, parse_note
from symbi.audit.event import Signing, place_event, prepare, trail_started
from symbi.audit.proof import Inclusion, prove_consistency, prove_inclusion
from symbi.audit.tree import TILE_WIDTH, Tree, nodes_of
from symbi.audit.verify import claims_of, verify_trail
from symbi.bench.crypto import PROVIDERS
from symbi.bench.measure import Measurement, Scale, Target, latency, rate, sample
from symbi.clock import rfc3339
from symbi.crypto.chain import GENESIS
from symbi.crypto.provider import open_provider
from symbi.testing.trail import START_NS, STEP_NS, build_trail, checkpoint_at, fixed_signing_key, sample_draft
from symbi.wiring import on_all_cores

EVENTS: Final = {"event": 50_000, "batch": 200_000}  # at full scale, by signing mode
CORES: Final = (1, 2)
CHECKPOINT_EVERY: Final = 4_096
PROVED: Final = 1_000_000  # events of the tree that proofs are made from
PROOFS: Final = 200
PROOF_HASHES_BYTES: Final = 32

_TARGETS: Final = {
    "event": Target(25_000, at_least=True, note="ours, on 2 cores"),
    "batch": Target(100_000, at_least=True, note="ours, on 2 cores"),
}
_MODES: Final = {"event": "a signature on each event", "batch": "batch-signed"}


def verification(scale: Scale) -> list[Measurement]:
    """Verification by mode, provider and number of cores."""
    rows = []
    for signing, events in EVENTS.items():
        for provider in PROVIDERS:
            count = scale.of(events, least=100)
            key = fixed_signing_key(provider=open_provider(provider))
            trail = build_trail(count - 1, key=key, signing=signing, every=CHECKPOINT_EVERY)
            for cores in CORES:
                with on_all_cores(count, cores=cores) as run:
                    begun = perf_counter_ns()
                    claims = claims_of(trail.checkpoints)
                    report = verify_trail(iter(trail.events), trail.head, trail.keys, claims=claims, run=run)
                    elapsed = perf_counter_ns() - begun
                where = "1 core" if cores == 1 else f"{cores} cores"
                rows.append(
                    rate(
                        "AUD-4",
                        f"verification, {_MODES[signing]}, {provider}, {where}",
                        report.events,
                        elapsed,
                        unit="events/s",
                        target=_TARGETS[signing] if cores == max(CORES) else None,
                        method=(
                            "a trail in memory; every field, link, leaf and signature, each checkpoint of 4,096 events, the head;"
                            " on several cores by processes that are there already"
                        ),
                    )
                )
    return rows


@dataclass(frozen=True, slots=True)
class _Grown:
    """A tree over many events, of which some are kept."""

    size: int
    tiles: Mapping[tuple[int, int], bytes]
    records: Mapping[int, bytes]
    head: Note
    old: Note


def proofs(scale: Scale) -> list[Measurement]:
    """Proofs from a tree of a million events: how large, how fast made, how fast checked."""
    grown = _grow(scale.of(PROVED, least=1_000))
    key = fixed_signing_key()
    keys = {key.key_id: key.verifying_key()}
    chosen = sorted(place for place in grown.records if place <= grown.size - TILE_WIDTH) or sorted(grown.records)
    made: list[Inclusion] = []

    def prove(number: int) -> None:
        place = chosen[number % len(chosen)]
        node = nodes_of(grown.size, lambda level, index: grown.tiles.get((level, index)), grown.records.__getitem__)
        made.append(prove_inclusion(grown.records[place], place - 1, grown.head, node))

    proving = sample(prove, PROOFS, warm=5)
    checking = sample(lambda number: made[number].verify(keys), PROOFS)
    node = nodes_of(grown.size, lambda level, index: grown.tiles.get((level, index)), grown.records.__getitem__)
    consistent = prove_consistency(grown.old, grown.head, node)
    consistent.verify(keys)
    largest = max(len(one.hashes) * PROOF_HASHES_BYTES for one in made)
    whole = max(len(json.dumps(one.to_json())) for one in made)
    at = f"at {grown.size:,} events"
    method = (
        "tiles in memory, nothing kept from one proof to the next; the tree, the record and the checkpoint's signature"
    )
    return [
        _size(f"hashes of a proof of inclusion, {at}", largest, Target(1_000, at_least=False, note="ours")),
        _size(f"a proof of inclusion as JSON, with its event and checkpoint, {at}", whole, None),
        _size(f"hashes of a proof of consistency, {at}", len(consistent.hashes) * PROOF_HASHES_BYTES, None),
        latency("AUD-4", f"making a proof of inclusion, {at}", proving, unit="ms", target=None, method=method),
        latency("AUD-4", f"checking a proof of inclusion, {at}", checking, unit="ms", target=None, method=method),
    ]


def _size(metric: str, value: int, target: Target | None) -> Measurement:
    told = None if target is None else target.text("", "bytes")
    met = None if target is None else target.met(value)
    return Measurement(
        "AUD-4", metric, "bytes", float(value), None, None, None, told, met, 1, "the largest of those made"
    )


def _grow(size: int) -> _Grown:
    """A batch-signed trail, of which only the tree, some records and two heads are kept."""
    key = fixed_signing_key()
    tree, tiles, records = Tree(), dict[tuple[int, int], bytes](), dict[int, bytes]()
    wanted = {1 + number * (size - 1) // (PROOFS // 2) for number in range(PROOFS // 2)}
    edge = size - size % TILE_WIDTH
    first = prepare(trail_started(key.verifying_key(), Signing.BATCH))
    drafts = [prepare(sample_draft(number)) for number in range(64)]
    chain_hash, old, record = GENESIS, b"", b""
    batch: list[bytes] = []
    for place in range(1, size + 1):
        unsigned = place_event(
            first if place == 1 else drafts[place % len(drafts)],
            sequence=place,
            previous_hash=chain_hash,
            event_id=b"01900000-0000-7000-9000-%012x" % place,
            timestamp=rfc3339(START_NS + place * STEP_NS).encode(),
            key_id=key.key_id.encode(),
        )
        chain_hash, record = unsigned.chain_hash, unsigned.finish(b"").record
        batch.append(record)
        if place in wanted or place > edge:
            records[place] = record
        if len(batch) == TILE_WIDTH or place in {size, size // 3}:
            _take(tree, tiles, batch)
        if place == size // 3:
            old = checkpoint_at(tree.size, tree.root(), record, key)
    head = checkpoint_at(tree.size, tree.root(), record, key)
    return _Grown(size, tiles, records, parse_note(head), parse_note(old))


def _take(tree: Tree, tiles: dict[tuple[int, int], bytes], batch: list[bytes]) -> None:
    for tile in tree.extend(batch):
        tiles[tile.level, tile.number] = tile.hashes
    batch.clear()


def audit_verify(scale: Scale) -> Sequence[Measurement]:
    """All rows."""
    return [*verification(scale), *proofs(scale)]

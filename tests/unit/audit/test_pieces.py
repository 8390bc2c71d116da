"""Stretches of a trail that begin or end elsewhere, and pieces that are checked apart: the verdict is that of one walk."""

import json
from dataclasses import replace

import pytest

from symbi.audit.checkpoint import parse_note
from symbi.audit.piece import ANY, examine
from symbi.audit.verify import PIECE_EVENTS, claims_of, in_process, verify_trail
from symbi.crypto.merkle import consistency_proof, leaf_hash, node_hash
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken
from symbi.testing.trail import (
    START_NS,
    STEP_NS,
    build_trail,
    checkpoint_over,
    fixed_signing_key,
    seal_fields,
    start_before,
)

PROVIDER = open_provider("libsodium")
KEY, SECOND, THIRD = (fixed_signing_key(number, PROVIDER) for number in (1, 2, 3))
TRAIL = build_trail(4, key=KEY)
LONG = build_trail(40, key=KEY, every=7)


def broken(events, head, keys=TRAIL.keys, **options):
    with pytest.raises(ChainBroken) as caught:
        verify_trail(events, head, keys, **options)
    return caught.value.fields["sequence"], caught.value.fields["reason"]


def test_a_stretch_of_a_trail_is_verified_from_its_frontier_on():
    for index in range(1, 5):
        report = verify_trail(TRAIL.events[index:], TRAIL.head, TRAIL.keys, start=start_before(TRAIL.events, index))
        assert (report.events, report.first, report.last) == (5 - index, index + 1, 5)
    assert broken(TRAIL.events[2:], TRAIL.head, start=start_before(TRAIL.events, 1)) == (2, "sequence")
    assert broken(TRAIL.events[3:], TRAIL.head, start=start_before(TRAIL.events, 2)) == (3, "sequence")


def test_a_frontier_that_is_not_the_one_before_is_found():
    start = start_before(TRAIL.events, 3)
    assert broken(TRAIL.events[3:], TRAIL.head, start=replace(start, hashes=(bytes(32), start.hashes[1]))) == (
        5,
        "head",
    )
    assert broken(TRAIL.events[3:], TRAIL.head, start=replace(start, chain_hash="ab" * 32)) == (4, "link")


def test_a_stretch_goes_on_from_the_report_of_the_one_before():
    trail = build_trail(15, key=KEY, changes={3: SECOND, 6: "batch", 9: THIRD, 12: "event"}, every=1)
    heads = dict(trail.checkpoints)
    for cut in range(1, len(trail.events)):
        begun = verify_trail(trail.events[:cut], heads[cut], trail.keys)
        whole = verify_trail(trail.events[cut:], trail.head, {}, start=begun.end)
        assert (whole.first, whole.last) == (cut + 1, len(trail.events))


def test_a_stretch_that_ends_before_the_head_is_joined_to_it_by_a_proof():
    leaves = [leaf_hash(event.record) for event in LONG.events]

    def node(level, index):
        if level == 0:
            return leaves[index]
        return node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    for first, last in ((1, 20), (9, 30), (15, 15), (40, 41)):
        start = start_before(LONG.events, first - 1)
        proof = consistency_proof(last, 41, node)
        report = verify_trail(LONG.events[first - 1 : last], LONG.head, LONG.keys, start=start, beyond=proof)
        assert (report.first, report.last) == (first, last)
    stretch = LONG.events[8:30]
    start = start_before(LONG.events, 8)
    proof = consistency_proof(30, 41, node)
    assert broken(stretch, LONG.head, start=start, beyond=proof[1:]) == (30, "head")
    assert broken(stretch, LONG.head, start=replace(start, hashes=(bytes(32),)), beyond=proof) == (30, "head")
    assert broken(stretch, checkpoint_over(LONG.events, SECOND), start=start, beyond=proof) == (41, "key")
    later = build_trail(60, key=KEY, every=50)
    claims = claims_of((), [parse_note(later.checkpoints[0][1])])
    assert broken(stretch, LONG.head, start=start, beyond=proof, claims=claims) == (42, "witness")


def pieces_apart(check, pieces):
    """As another process would: several pieces are checked before the first is joined."""
    waiting = []
    for piece in pieces:
        waiting.append((piece, check(piece)))
        if len(waiting) > 3:
            yield waiting.pop(0)
    yield from waiting


def looks_again(check, pieces):
    for piece in pieces:
        yield piece, None


SEVERAL = build_trail(
    PIECE_EVENTS * 7, key=KEY, every=900, changes={1500: SECOND, 3000: "batch", 4000: THIRD, 6000: "event"}
)


@pytest.mark.parametrize("run", [pieces_apart, looks_again])
def test_wherever_pieces_are_checked_the_verdict_is_the_same(run):
    def verdict(events, run_):
        try:
            claims = claims_of(SEVERAL.checkpoints)
            return verify_trail(events, SEVERAL.head, SEVERAL.keys, claims=claims, **run_)
        except ChainBroken as error:
            return error.message, error.fields

    events = list(SEVERAL.events)
    assert verdict(events, {"run": run}) == verdict(events, {})
    for place in (1, 1025, 1026, 1501, 4003, 7000):
        altered = list(events)
        altered[place - 1] = replace(events[place - 1], record=events[place - 1].record.replace(b"run-", b"ran-"))
        del altered[place + 2 : place + 5]
        found = verdict(altered, {"run": run})
        assert found == verdict(altered, {})
        assert isinstance(found, tuple)


@pytest.mark.parametrize("run", [pieces_apart, in_process])
@pytest.mark.parametrize("signing", ["event", "batch"])
def test_where_pieces_meet_nothing_passes(run, signing):
    """A piece that is whole in itself, by the same key, and belongs elsewhere, or to another time."""
    meet = 1 + PIECE_EVENTS + 1  # the first event is a piece of its own
    ours, other = (
        build_trail(meet + 20, key=KEY, signing=signing, start_ns=START_NS + late) for late in (0, STEP_NS // 2)
    )
    spliced = (*ours.events[: meet - 1], *other.events[meet - 1 :])
    assert broken(spliced, other.head, run=run) == (meet, "link")
    late = build_trail(PIECE_EVENTS, key=KEY, signing=signing)
    fields = json.loads(ours.events[meet - 1].record) | {"timestamp": ours.parsed[meet - 3].timestamp}
    early = seal_fields(fields, KEY if signing == "event" else None)
    events = (*late.events, early)
    assert broken(events, checkpoint_over(events, KEY), run=run) == (meet, "time")


def test_a_piece_whose_assumption_does_not_hold_is_not_taken_as_checked():
    """Events without signatures, checked apart as if the mode were `batch`, in a trail where each must have one."""
    events = list(build_trail(PIECE_EVENTS + 10, key=KEY).events)
    place = PIECE_EVENTS + 5
    events[place - 1] = seal_fields(json.loads(events[place - 1].record), None)

    def assumes_anything(check, pieces):
        for piece in pieces:
            loose = piece._replace(force=ANY)
            yield loose, examine(loose)

    assert broken(events, TRAIL.head, run=assumes_anything)[1] in {"signature", "head"}
    events[place:] = ()
    assert broken(events, checkpoint_over(events, KEY), run=assumes_anything) == (place, "signature")

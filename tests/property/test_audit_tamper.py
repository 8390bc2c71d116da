"""Nothing in a trail can be altered, left out, put in, exchanged or cut off without `verify_trail` finding it."""

import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.audit.verify import verify_trail
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken
from symbi.testing.trail import START_NS, build_trail, checkpoint_over, fixed_signing_key, sample_draft, start_before

PROVIDER = open_provider("libsodium")
KEY = fixed_signing_key(1, PROVIDER)
SMALL = build_trail(7, key=KEY)
BIG = build_trail(499, key=KEY)
OTHER = build_trail([sample_draft(number) for number in range(50, 57)], key=KEY, start_ns=START_NS + 1)
FORGED = build_trail(7, key=fixed_signing_key(2, PROVIDER))
SIZE = len(SMALL.events)


def found_at(trail, events=None, head=...):
    """Where the first bad event is found; fails if nothing is."""
    with pytest.raises(ChainBroken) as caught:
        verify_trail(trail.events if events is None else events, trail.head if head is ... else head, trail.keys)
    return caught.value.fields["sequence"]


def flipped(data, position, bit):
    altered = bytearray(data)
    altered[position] ^= 1 << bit
    return bytes(altered)


def with_event(trail, index, **changes):
    return (*trail.events[:index], replace(trail.events[index], **changes), *trail.events[index + 1 :])


def test_an_untouched_trail_verifies():
    for trail in (SMALL, BIG, OTHER):
        report = verify_trail(trail.events, trail.head, trail.keys)
        assert (report.events, report.first, report.last) == (len(trail.events), 1, len(trail.events))


@pytest.mark.parametrize("index", range(SIZE))
def test_a_flipped_bit_in_any_byte_of_any_event_is_found_there(index):
    chosen = random.Random(index)
    record = SMALL.events[index].record
    for position in range(len(record)):
        altered = flipped(record, position, chosen.randrange(8))
        assert found_at(SMALL, with_event(SMALL, index, record=altered)) == index + 1


@pytest.mark.parametrize("index", [0, 4, SIZE - 1])
def test_each_of_the_bits_of_an_event_matters(index):
    record = SMALL.events[index].record
    # The events before it are as they were; from its own place on is enough to see it found.
    for position in range(len(record)):
        for bit in range(8):
            stored = replace(SMALL.events[index], record=flipped(record, position, bit))
            with pytest.raises(ChainBroken):
                verify_trail([stored], SMALL.head, SMALL.keys, start=start_before(SMALL.events, index))


def test_each_of_the_bits_of_the_head_matters():
    for position in range(len(SMALL.head)):
        for bit in range(8):
            with pytest.raises(ChainBroken):
                verify_trail(SMALL.events, flipped(SMALL.head, position, bit), SMALL.keys)


@pytest.mark.parametrize("index", range(SIZE))
def test_a_change_in_the_columns_of_the_store_is_found(index):
    stored = SMALL.events[index]
    for sequence in {0, -1, index, index + 2, 2**62} - {stored.sequence}:
        assert found_at(SMALL, with_event(SMALL, index, sequence=sequence)) == index + 1
    for position in range(64):
        altered = flipped(stored.chain_hash.encode(), position, 0).decode()
        assert found_at(SMALL, with_event(SMALL, index, chain_hash=altered)) == index + 1
    for chain_hash in ("", stored.chain_hash.upper() + " ", stored.chain_hash[:-1]):
        assert found_at(SMALL, with_event(SMALL, index, chain_hash=chain_hash)) == index + 1


@pytest.mark.parametrize("index", range(SIZE))
def test_a_deleted_event_is_found(index):
    assert found_at(SMALL, SMALL.events[:index] + SMALL.events[index + 1 :]) == index + 1


@pytest.mark.parametrize("index", range(SIZE - 1))
def test_a_deleted_event_is_found_though_the_rest_was_numbered_anew_in_the_store(index):
    rest = [replace(event, sequence=event.sequence - 1) for event in SMALL.events[index + 1 :]]
    assert found_at(SMALL, [*SMALL.events[:index], *rest]) == index + 1


@pytest.mark.parametrize(("first", "second"), [*combinations(range(SIZE), 2)])
def test_swapped_events_are_found(first, second):
    events = list(SMALL.events)
    events[first], events[second] = events[second], events[first]
    assert found_at(SMALL, events) == first + 1
    records = with_event(SMALL, first, record=SMALL.events[second].record)
    records = (*records[:second], replace(records[second], record=SMALL.events[first].record), *records[second + 1 :])
    assert found_at(SMALL, records) == first + 1


@pytest.mark.parametrize("place", range(SIZE + 1))
def test_a_duplicated_event_is_found(place):
    for event in SMALL.events:
        events = (*SMALL.events[:place], event, *SMALL.events[place:])
        # A copy right after its original stands where the next one belongs.
        assert found_at(SMALL, events) == place + 1 + (event.sequence == place + 1)


@pytest.mark.parametrize("place", range(SIZE))
@pytest.mark.parametrize("other", [OTHER, FORGED], ids=["same-key", "foreign-key"])
def test_an_event_of_another_trail_is_found(place, other):
    """It has the right number, a good hash and a good signature, and belongs elsewhere."""
    stranger = other.events[place]
    inserted = (*SMALL.events[:place], stranger, *SMALL.events[place:])
    exchanged = (*SMALL.events[:place], stranger, *SMALL.events[place + 1 :])
    # A true beginning by the same key is found by what follows it.
    expected = 2 if place == 0 and other is OTHER else place + 1
    assert found_at(SMALL, inserted) == found_at(SMALL, exchanged) == expected


@pytest.mark.parametrize("left", range(SIZE))
def test_a_truncated_tail_is_found(left):
    assert found_at(SMALL, SMALL.events[:left]) == left + 1


@pytest.mark.parametrize("cut", range(1, SIZE + 1))
def test_a_truncated_beginning_is_found(cut):
    assert found_at(SMALL, SMALL.events[cut:]) == 1
    moved = [replace(event, sequence=event.sequence - cut) for event in SMALL.events[cut:]]
    assert found_at(SMALL, moved) == 1


def test_the_tail_of_another_trail_is_found():
    for place in range(1, SIZE):
        assert found_at(SMALL, SMALL.events[:place] + OTHER.events[place:], OTHER.head) == place + 1


def older_head(trail, sequence, key=KEY):
    return checkpoint_over(trail.events[:sequence], key)


@pytest.mark.parametrize(
    "head",
    [
        None,
        b"",
        b"{}",
        b"[]",
        b"null",
        SMALL.events[-1].record,
        OTHER.head,
        FORGED.head,
        BIG.head,
        older_head(SMALL, SIZE - 1),
        older_head(SMALL, 1),
        older_head(SMALL, SIZE, fixed_signing_key(2, PROVIDER)),
        older_head(OTHER, SIZE),
        SMALL.head + b"\n",
        SMALL.head.replace(b"\n8\n", b"\n08\n"),
        checkpoint_over(SMALL.events, KEY, size=6),
    ],
)
def test_a_replaced_head_is_found(head):
    assert found_at(SMALL, head=head) in {2, 6, SIZE, SIZE + 1}


def test_a_whole_trail_by_another_key_is_found_though_it_names_that_key_itself():
    with pytest.raises(ChainBroken, match="not trusted") as caught:
        verify_trail(FORGED.events, FORGED.head, SMALL.keys)
    assert caught.value.fields == {"sequence": 1, "reason": "key"}


def test_a_store_put_back_to_an_earlier_state_is_shown_by_a_head_kept_elsewhere():
    """Alone it cannot be told from a trail that ended there: that is why heads are copied away."""
    earlier = SMALL.events[:5]
    assert verify_trail(earlier, older_head(SMALL, 5), SMALL.keys).last == 5
    with pytest.raises(ChainBroken, match="ends with event 8, and it ends with event 5"):
        verify_trail(earlier, SMALL.head, SMALL.keys)


@settings(max_examples=150)
@given(st.integers(0, len(BIG.events) - 1), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_a_long_trail_is_found_there(index, where, bit):
    record = BIG.events[index].record
    altered = flipped(record, int(where * len(record)), bit)
    assert found_at(BIG, with_event(BIG, index, record=altered)) == index + 1


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, len(BIG.events) - 1), min_size=2, max_size=6, unique=True),
    st.randoms(use_true_random=False),
)
def test_any_other_order_of_a_long_trail_is_found_at_its_first_change(indices, shuffler):
    order = list(indices)
    shuffler.shuffle(order)
    events = list(BIG.events)
    for target, source in zip(indices, order, strict=True):
        events[target] = BIG.events[source]
    moved = [target for target, source in zip(indices, order, strict=True) if target != source]
    if moved:
        assert found_at(BIG, events) == min(moved) + 1


@settings(max_examples=60)
@given(st.sets(st.integers(0, len(BIG.events) - 1), min_size=1))
def test_any_events_left_out_of_a_long_trail_are_found_at_the_first(gone):
    events = [event for index, event in enumerate(BIG.events) if index not in gone]
    assert found_at(BIG, events) == min(gone) + 1

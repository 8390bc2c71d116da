"""Ids of messages and events: UUIDv7 that sort in the order of their making."""

from uuid import RFC_4122, UUID

from symbi.clock import IdSource
from symbi.testing.clock import ManualClock


def test_ids_are_uuids_of_version_7_and_sort_as_they_were_made():
    clock = ManualClock()
    source = IdSource(clock)
    made = [source.new(), *source.several(10_000), source.new()]  # more than a millisecond can count
    clock.advance(0.001)
    made += source.several(3)
    clock.advance(60)
    made.append(source.new())
    assert made == sorted(set(made))
    for text in made:
        parsed = UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, RFC_4122)
    assert UUID(made[-1]).int >> 80 == clock.now_ns() // 1_000_000


def test_packed_ids_are_the_same_in_16_bytes_and_sort_with_the_others():
    source = IdSource(ManualClock())
    made = [
        UUID(source.new()).bytes,
        *source.several_packed(5000),
        *(UUID(text).bytes for text in source.several(2)),
        *source.several_packed(1),
    ]
    assert made == sorted(set(made))
    assert all(UUID(bytes=one).version == 7 and UUID(bytes=one).variant == RFC_4122 for one in made)
    assert source.several_packed(0) == source.several(0) == []


def test_what_is_random_differs_from_id_to_id():
    assert len({one[8:] for one in IdSource(ManualClock()).several_packed(1000)}) == 1000

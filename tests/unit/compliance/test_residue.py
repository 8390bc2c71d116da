"""The search for what is left: every form of a value, across the ends of chunks, and ordinary words apart."""

import base64
import json
import os
import tracemalloc
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.compliance.forms import LONG_CHARS, PIECE_CHARS, Sought, Wanted, leaves_of
from symbi.compliance.residue import CHUNK_BYTES, MAX_FINDS, MAX_PATTERNS, Search, set_apart

NAME = "Jürgen Müller"


def wanted(*, name: str = "", given: tuple[str, ...] = (), opened: object = None) -> Wanted:
    all_of_it = Wanted.empty(MAX_PATTERNS)
    all_of_it.add_text(name, Sought.NAME)
    for value in given:
        all_of_it.add_text(value, Sought.GIVEN)
    all_of_it.add_opened(opened)
    return all_of_it


def found(data: bytes, sought: Wanted, size: int = 7) -> list[tuple[int, str]]:
    search = Search(sought.patterns)
    search.look("file", (data[start : start + size] for start in range(0, len(data), size)))
    return [(find.offset, find.form) for find in search.findings.finds if find.sought is not Sought.ORDINARY]


FORMS = {
    "plain": NAME.encode(),
    "latin-1": NAME.encode("latin-1"),
    "utf-16-le": NAME.encode("utf-16-le"),
    "utf-16-be": NAME.encode("utf-16-be"),
    "json": json.dumps(NAME).encode(),
    "json twice": json.dumps(json.dumps({"name": NAME})).encode(),
    "percent": quote(NAME).encode(),
    "percent, small": quote(NAME).lower().encode(),
    "plus": quote(NAME).replace("%20", "+").encode(),
    "hex": NAME.encode().hex().encode(),
    "HEX": NAME.encode().hex().upper().encode(),
    "other case": NAME.upper().encode(),
    "decomposed": b"Ju\xcc\x88rgen Mu\xcc\x88ller",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_name_is_found_in_each_form_wherever_a_chunk_ends(form, size):
    assert found(b"x" * 11 + form + b"y" * 13, wanted(name=NAME), size)
    assert not found(b"x" * 11 + form[: len(form) // 2] + b"y" * 13, wanted(name=NAME), size)


@given(before=st.binary(max_size=9), after=st.binary(max_size=9), text=st.text(min_size=8, max_size=40))
def test_a_value_is_found_in_base64_at_every_alignment(before, after, text):
    data = before + text.encode() + after
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        assert found(encoded, wanted(given=(text,)))


@given(text=st.text(min_size=1), before=st.binary(max_size=30), after=st.binary(max_size=30), size=st.integers(1, 9))
def test_whatever_is_named_is_found_at_its_place(text, before, after, size):
    data = before + text.encode() + after
    if not text.isdigit():  # a number beside digits is another
        places = [offset for offset, _ in found(data, wanted(given=(text,)), size)]
        assert len(before) in places
        assert all(data[place:] for place in places)


def test_a_find_is_told_once_and_never_what_was_found():
    search = Search(wanted(name="Jane Doe").patterns)
    search.look("db", [b"..Jane", b" Doe..", b"Jane Doe"])
    told = [find.as_json() for find in search.findings.finds]
    assert told == [
        {"place": "db", "offset": 2, "sought": "name", "form": "plain"},
        {"place": "db", "offset": 12, "sought": "name", "form": "plain"},
    ]
    assert "Jane" not in str(told)
    assert search.findings.residue == 2
    assert not search.findings.clean


def test_what_was_opened_is_searched_by_its_texts_and_ordinary_words_are_told_apart():
    opened = {
        "name": "Jane Doe", "state": "approved", "at": "2026-11-25T21:00:00Z", "day": "2026-11-25", "n": 3,
        "card": 4929123412341234, "id": "0199d2c0-0000-7000-8000-000000000000", "inner": '{"mail": "jane@example.com"}',
        "no": None, "yes": True, "x": "ab", "digest": "0f" * 32,
    }  # fmt: skip
    sought = wanted(opened=opened)
    assert sought.values == {Sought.OPENED: 4, Sought.ORDINARY: 5}  # the inner JSON as a text, and its address
    assert sought.too_short == 1
    plain = b"Jane Doe approved 2026-11-25T21:00:00Z 0199d2c0-0000-7000-8000-000000000000 4929123412341234"
    search = Search(sought.patterns)
    search.look("f", [plain + b" jane@example.com"])
    assert search.findings.residue == 3
    assert search.findings.count[Sought.ORDINARY] >= 3
    assert "state" not in list(leaves_of(opened))  # names of fields are no values


def test_a_number_inside_another_is_not_that_number():
    sought = wanted(opened={"card": 123456789})
    assert found(b"id 123456789.", sought) == [(3, "plain")]
    assert found(b"123456789", sought, 4)
    assert not found(b"id 91234567890.", sought)
    assert not found(b"id 1234567891", sought)


def test_a_part_of_a_long_text_is_found():
    text = "".join(chr(ord("a") + n % 26) + str(n) for n in range(400))
    assert len(text) > LONG_CHARS
    start = 301
    part = text[start : start + 2 * PIECE_CHARS]
    assert found(b"..." + part.encode() + b"...", wanted(opened=text))
    assert not found(part[: PIECE_CHARS // 2].encode(), wanted(opened=text))
    letter = "x " * 60 + "write to jane.doe@example.com, please"
    assert found(b"<jane.doe@example.com>", wanted(opened=letter))


def test_a_destroyed_key_is_searched_for_too():
    sought = Wanted.empty(10)
    sought.add_secret(key := os.urandom(60))
    for data in (key, key.hex().encode(), base64.b64encode(key)):
        assert found(b"--" + data, sought)


def test_values_beyond_the_bound_are_told_as_left_out():
    sought = Wanted.empty(5)
    sought.add_opened([f"customer number {n}" for n in range(100)])
    assert sought.left_out == 99


def test_finds_are_counted_beyond_those_that_are_told():
    search = Search(wanted(name="Jane Doe").patterns)
    search.look("f", [b"Jane Doe"] * (MAX_FINDS + 5))
    assert len(search.findings.finds) == MAX_FINDS
    assert search.findings.residue == MAX_FINDS + 5


def test_what_the_operator_wrote_for_everybody_counts_as_ordinary_and_names_never_do():
    sought = wanted(
        name="Jane Doe", given=("Room 7b",), opened={"to": "On Call <oncall@example.com>", "street": "17 Elm Street"}
    )
    policies = b'permit when { arguments.to == "On Call <oncall@example.com>" } // Jane Doe, Room 7b'
    set_apart(sought, [b"", policies])
    search = Search(sought.patterns)
    search.look("f", [policies, b" 17 Elm Street", b"On Call <oncall@example.com>".hex().encode()])
    assert {find.sought for find in search.findings.finds} == set(Sought) - {Sought.KEY}
    told = {find.offset for find in search.findings.finds if find.sought is not Sought.ORDINARY}
    assert told == {policies.index(b"Jane"), policies.index(b"Room"), len(policies) + 1}
    assert sought.shared == 2  # the text, and the address in it


def test_a_search_takes_the_memory_of_a_chunk_however_much_it_reads():
    def peak(chunks: int) -> int:
        search = Search(wanted(name="Jane Doe", opened=[f"customer number {n}" for n in range(100)]).patterns)
        tracemalloc.start()
        try:
            search.look("f", (bytes(CHUNK_BYTES) for _ in range(chunks)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(32) < 1.5 * peak(4)


def test_looking_for_nothing_finds_nothing():
    search = Search({})
    search.look("f", [b"abc"])
    assert search.findings.clean
    assert (search.findings.places, search.findings.size) == (1, 3)

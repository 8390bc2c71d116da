"""Names of files of a container, and what comes out in them: whatever is given, a name is no path, and a value is in bounds."""

import json
import os
import time
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symbi.dsl.containers import MAX_NAME_CHARS, is_file_name
from symbi.errors import CodeFailed, InputError, OutputLimit
from symbi.guard.actions.containers import file_bytes
from symbi.sandbox.files import MAX_FILES, MAX_OUTPUT_BYTES, check_names, read_outputs
from symbi.sandbox.request import VALUE_BOUNDS
from symbi.sandbox.values import copy_json, has_more_parts

NAMES = st.one_of(
    st.text(max_size=120),
    st.text(alphabet="ab._-/\\ \n\0~:é", max_size=12),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+=@ -]{0,120}", fullmatch=True),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-(2.0**50), 2.0**50)
    | st.text(alphabet=st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet=st.characters(codec="utf-8"), max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(name=NAMES)
@example(name=".")
@example(name="..")
@example(name="-rf")
@example(name="a/..")
@example(name="a\n")
@example(name="a ")
@example(name="x" * (MAX_NAME_CHARS + 1))
def test_a_name_that_is_taken_is_one_part_of_a_path_and_stays_in_its_folder(name):
    if not is_file_name(name):
        with pytest.raises(InputError) as caught:
            check_names([name], "outputs")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 2 * MAX_NAME_CHARS
        return
    assert check_names([name], "outputs") == (name,)
    assert os.path.normpath(f"/tmp/out/{name}") == f"/tmp/out/{name}"
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert (path.name, path.parts, path.is_absolute()) == (name, (name,), False)
    assert not name.startswith(("-", "."))
    assert 0 < len(os.fsencode(name)) <= MAX_NAME_CHARS
    assert name.isprintable()


@given(names=st.lists(st.sampled_from([f"f{n}" for n in range(80)]), max_size=80))
def test_names_are_few_and_each_is_there_once(names):
    if len(names) <= MAX_FILES and len(set(names)) == len(names):
        assert check_names(names, "inputs") == tuple(names)
    else:
        with pytest.raises(InputError):
            check_names(names, "inputs")


@given(value=PLAIN)
def test_what_goes_in_as_json_comes_out_as_the_same_value(value):
    data = file_bytes(value)
    if isinstance(value, str):
        assert read_outputs({"o.txt": data}) == {"o.txt": value}
    else:
        assert read_outputs({"o.json": data})["o.json"] == value


@given(
    data=st.one_of(
        st.binary(max_size=200),
        PLAIN.map(lambda value: json.dumps(value).encode()),
        st.text(alphabet='[]{}",:0123456789eE+-. ntrufalsNI\\u', max_size=200).map(str.encode),
        st.integers(0, 300).map(lambda depth: b"[" * depth + b"]" * depth),
    ),
    name=st.sampled_from(["o.json", "o", "o.json.txt"]),
)
def test_whatever_a_program_writes_is_a_value_in_bounds_or_an_error_of_its_own(data, name):
    try:
        value = read_outputs({name: data})[name]
    except (CodeFailed, OutputLimit) as error:
        message = error.message
    else:
        message = ""
    if message:
        assert name in message
        return
    assert copy_json(value, VALUE_BOUNDS, wrong=AssertionError, large=AssertionError) == value
    if name != "o.json":
        assert value.encode() == data


@given(sizes=st.lists(st.integers(0, MAX_OUTPUT_BYTES), min_size=1, max_size=3))
@example(sizes=[MAX_OUTPUT_BYTES])
@example(sizes=[MAX_OUTPUT_BYTES, 1])
def test_outputs_are_bounded_together(sizes):
    found = {f"f{index}": b"x" * size for index, size in enumerate(sizes)}
    if sum(sizes) > MAX_OUTPUT_BYTES:
        with pytest.raises(OutputLimit):
            read_outputs(found)
    else:
        assert {name: len(text) for name, text in read_outputs(found).items()} == {
            name: len(data) for name, data in found.items()
        }


@given(value=PLAIN, most=st.integers(0, 12))
@example(value={"[,{": ["\\", '"', '\\"', ",[{"]}, most=0)
def test_parts_are_counted_outside_of_texts_alone(value, most):
    def parts(one):
        if isinstance(one, list):
            return 1 + max(0, len(one) - 1) + sum(map(parts, one))
        return 1 + max(0, len(one) - 1) + sum(map(parts, one.values())) if isinstance(one, dict) else 0

    assert has_more_parts(json.dumps(value).encode(), most) == (parts(value) > most)


def test_a_text_that_nothing_closes_is_looked_at_once():
    def took_s(pairs):
        data = b'[",' + b'\\"' * pairs
        times = []
        for _ in range(20):
            began_s = time.process_time()
            has_more_parts(data, 1)
            times.append(time.process_time() - began_s)
        return min(times)

    assert took_s(16_000) < 8 * took_s(4_000)  # four times as long, and not sixteen times


def test_json_is_utf_8_and_is_not_guessed_to_be_anything_else():
    with pytest.raises(CodeFailed, match="is no JSON"):
        read_outputs({"a.json": "[1]".encode("utf-16-le")})

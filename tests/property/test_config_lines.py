"""Key places, on generated TOML: every key that `tomllib` reads is found on the line that it was written on."""

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from symbi.config.lines import key_places

BARE = st.text("abcXYZ019_-", min_size=1, max_size=6)
NAMES = st.one_of(BARE, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6).map(json.dumps))
SCALARS = st.one_of(
    st.integers(-(2**40), 2**40).map(str),
    st.sampled_from(["true", "1.5", "nan", "1979-05-27 07:32:00Z", '"""', "'''"]).map(
        lambda word: {'"""': '"""\nx = 1 # [y]\n\\""" """""', "'''": "'''\n[z]\n''''"}.get(word, word)
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(json.dumps),
    st.text('ab #[]{}=,"', max_size=8).map(lambda text: f"'{text}'"),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: "[ # ]\n" + ",\n".join(parts) + "\n]"),
        st.dictionaries(BARE, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{name} = {value}" for name, value in table.items()) + "}"
        ),
    ),
    max_leaves=5,
)


def spelled(name):
    return json.loads(name) if name.startswith('"') else name


@given(
    st.lists(
        st.tuples(NAMES, st.lists(st.tuples(NAMES, VALUES), max_size=4, unique_by=lambda pair: spelled(pair[0]))),
        max_size=4,
        unique_by=lambda pair: spelled(pair[0]),
    )
)
def test_every_key_is_found_on_its_line(tables):
    lines: list[str] = []
    expected = {}
    for table, pairs in tables:
        lines.append(f"[ {table} ] # a = 1")
        expected[spelled(table),] = len("\n".join(lines).split("\n"))
        for name, value in pairs:
            start = len("\n".join(lines).split("\n")) + 1
            lines.append(f"  {name}\t= {value} # b = 2")
            expected[spelled(table), spelled(name)] = start
    text = "\n".join(lines)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a value that this version does not take; the scanner is only promised valid text
    places = key_places(text)
    assert {path: places[path][0] for path in expected} == expected
    assert {path[0] for path in places} == set(data)

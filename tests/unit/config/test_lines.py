"""Where keys stand in a TOML text."""

import pytest

from symbi.config.lines import key_places

TEXT = '''# comment [not.a.table]
top = 1 # x = 2

[a]
plain = "x = 1"
"quoted key" = 'a # b'
dotted.inner = 3
multi = """
fake = 1
[fake]
\\""" still inside
"""
literal = \'\'\'
fake2 = 1 \'\'\'\'
list = [ # comment
  "]", { deep = 1 },
  [1, 2],
]
after = 1979-05-27 07:32:00

[ b . "c.d" ]
inline = { x = 1, y = { z = "}" } }
empty = ""
last = true
[[many]]
one = 1
[[many]]
two = 2
'''


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ("top", (2, 1)),
        ("a", (4, 1)),
        ("a/plain", (5, 1)),
        ("a/quoted key", (6, 1)),
        ("a/dotted", (7, 1)),
        ("a/dotted/inner", (7, 1)),
        ("a/multi", (8, 1)),
        ("a/literal", (13, 1)),
        ("a/list", (15, 1)),
        ("a/list/deep", (16, 10)),
        ("a/after", (19, 1)),
        ("b", (21, 1)),
        ("b/c.d", (21, 1)),
        ("b/c.d/inline", (22, 1)),
        ("b/c.d/inline/x", (22, 12)),
        ("b/c.d/inline/y/z", (22, 25)),
        ("b/c.d/empty", (23, 1)),
        ("b/c.d/last", (24, 1)),
        ("many", (25, 1)),
        ("many/one", (26, 1)),
        ("many/two", (28, 1)),
    ],
)
def test_a_key_is_found_where_it_stands(path, position):
    assert key_places(TEXT)[tuple(path.split("/"))] == position


def test_nothing_else_is_found():
    names = {path[-1] for path in key_places(TEXT)}
    assert not names & {"fake", "fake2", "not", "x = 1", "]", "}"}


def test_carriage_returns_and_a_missing_last_line_feed_do_not_matter():
    assert key_places("[a]\r\nb = 1\r\nc = 2") == {("a",): (1, 1), ("a", "b"): (2, 1), ("a", "c"): (3, 1)}


def test_an_empty_text_has_no_keys():
    assert key_places("") == {}
    assert key_places("\n\n# only this") == {}

"""What no file of the repository may say."""

import re
from pathlib import Path

import pytest

# Written in parts, so that this file does not say it either.
REGISTRIES = [
    "\\.".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "(?:org|com)"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("golang", "org"),
        ("rubygems", "org"),
        ("docker", "com"),
        ("registry-1", "docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("anaconda", "org"),
        ("huggingface", "co"),
    )
]
WORKPLACE = [
    "/work" + "/",
    "/opt" + "/pypi",
    "/tmp" + "/brief",
    "co-authored" + "-by",
    "generated " + "(?:with|by an?) (?:ai|llm)",
]
UNFINISHED = [
    "TO" + "DO",
    "FIX" + "ME",
    "XX" + "X",
    "in a real " + "implementation",
    "for " + "now",
    "place" + "holder",
]


def places(texts, root, words, *, flags=re.IGNORECASE, under=()):
    pattern = re.compile("|".join(rf"(?<![\w-]){word}" if word[0].isalnum() else word for word in words), flags)
    return [
        f"{path.relative_to(root)}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for path, text in texts
        if not under or path.relative_to(root).parts[0] in under
        for match in pattern.finditer(text)
    ]


def test_no_file_names_the_host_of_a_registry(texts, root):
    assert places(texts, root, REGISTRIES) == []


def test_no_file_speaks_of_where_it_was_written(texts, root):
    assert places(texts, root, WORKPLACE) == []


def test_nothing_is_left_unfinished(texts, root):
    words = [rf"{word}\b" for word in UNFINISHED]
    assert places(texts, root, words, under=("src", "examples", "tools", "docs", "README.md")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("see https://" + "pypi" + ".org/simple", REGISTRIES),
        ("files." + "pythonhosted" + ".org", REGISTRIES),
        ("cd /work" + "/main", WORKPLACE),
        ("# TO" + "DO later", UNFINISHED),
    ],
)
def test_the_words_are_found(text, words):
    assert places([(Path("/a/b.md"), text)], Path("/a"), words)

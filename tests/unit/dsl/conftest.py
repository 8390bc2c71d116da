"""The cases of the agent language, as data: `cases_valid.toml` and `cases_invalid.toml`."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind in ("valid", "invalid"):
        if f"{kind}_case" in metafunc.fixturenames:
            cases = tomllib.loads((HERE / f"cases_{kind}.toml").read_text(encoding="utf-8"))["case"]
            metafunc.parametrize(f"{kind}_case", cases, ids=[case["name"].replace(" ", "-") for case in cases])


@pytest.fixture
def nested() -> Callable[[int], dict[str, str]]:
    """Texts that nest a number of levels deep, one for every way to nest."""

    def texts(levels: int) -> dict[str, str]:
        def value(text: str) -> str:
            return f"function f() {{ let x = {text}; }}"

        def around(opening: str, inner: str, closing: str) -> str:
            return opening * levels + inner + closing * levels

        def body(text: str) -> str:
            return f"function f() {{ {text} }}"

        return {
            "parentheses": value(around("(", "1", ")")),
            "arrays": value(around("[", "", "]")),
            "arrays in metadata": f"metadata {{ a = {around('[', '', ']')} }}",
            "records": value(around("{ a: ", "1", " }")),
            "records with a type": value(around("T { a: ", "1", " }")),
            "calls in calls": value(around("f(", "1", ")")),
            "named arguments": value(around("f(a = ", "1", ")")),
            "calls in a row": value("f" + "()" * levels),
            "indices in indices": value(around("a[", "1", "]")),
            "indices in a row": value("a" + "[1]" * levels),
            "members": value("a" + ".b" * levels),
            "unary": value("!" * levels + "a"),
            "unary in words": value("not " * levels + "a"),
            "minus signs": value("-" * levels + "a"),
            "a sum": value("1" + " + 1" * levels),
            "a sum to the right": value(around("(1 + ", "1", ")")),
            "lambdas": value("x => " * levels + "1"),
            "if": body(around("if a { ", "", " }")),
            "if let": body(around("if let a = b { ", "", " }")),
            "else": body(around("if a {} else { ", "", " }")),
            "else if": body("if a {} else " * (levels - 1) + "if a {}"),
            "if as a value, which counts for itself and for its block": value(
                "if a { let y = " * (levels // 2)
                + "(" * (levels % 2)
                + "1"
                + ")" * (levels % 2)
                + "; } else {}" * (levels // 2)
            ),
            "for": body(around("for a in b { ", "", " }")),
            "try": body(around("try { ", "", " }")),
            "catch": body(around("try {} catch (e) { ", "", " }")),
            "match": body(around("match a { 1 => { ", "", " } }")),
            "a rule": f"policy p {{ allow: {around('(', 'a', ')')} }}",
            "a guard": f"policy p {{ allow: a if {around('[', '', ']')} }}",
            "with": f"agent a {{ with b = {around('[', '', ']')} {{}} }}",
            "the body of with": f"agent a {{ with {{ {around('if a { ', '', ' }')} }} }}",
            "generics": f"function f(a: {around('A<', 'B', '>')}) {{}}",
        }

    return texts

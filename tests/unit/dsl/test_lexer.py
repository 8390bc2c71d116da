import pytest

from symbi.dsl.lexer import Kind, quote, tokenize, unescape
from symbi.errors import DslError


def kinds(text: str) -> list[tuple[Kind, str]]:
    return [(token.kind, token.text) for token in tokenize(text, "a.symbi")]


def test_the_last_token_is_the_end():
    assert kinds("") == [(Kind.END, "")]
    assert kinds("  \n") == [(Kind.END, "")]


def test_every_symbol():
    symbols = [
        "=>",
        "->",
        "==",
        "!=",
        "<=",
        ">=",
        "&&",
        "||",
        "+=",
        "-=",
        "*=",
        "/=",
        "%=",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "<",
        ">",
        ",",
        ":",
        ";",
        "=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        ".",
    ]
    assert kinds(" ".join(symbols)) == [*((Kind.SYMBOL, symbol) for symbol in symbols), (Kind.END, "")]


def test_the_longest_symbol_wins():
    assert [text for _, text in kinds("a=>b==c=!d<-e")] == ["a", "=>", "b", "==", "c", "=", "!", "d", "<", "-", "e", ""]


def test_kinds_of_literals():
    assert [kind for kind, _ in kinds('"a" 1 1.5 5m 5.hours vault://a/b true')] == [
        Kind.STRING,
        Kind.NUMBER,
        Kind.NUMBER,
        Kind.DURATION,
        Kind.DURATION,
        Kind.VAULT,
        Kind.WORD,
        Kind.END,
    ]


def test_a_word_that_ends_in_vault_begins_no_reference():
    assert kinds("myvault://x")[:2] == [(Kind.WORD, "myvault"), (Kind.SYMBOL, ":")]


def test_comments_stand_apart_with_the_token_after_them():
    tokens = tokenize("a // x\n# y\nb // z", "a.symbi")
    assert [(token.text, [c.text for c in token.comments]) for token in tokens] == [
        ("a", []),
        ("b", ["// x", "# y"]),
        ("", ["// z"]),
    ]


def test_places_count_lines_by_line_feeds_and_columns_by_characters():
    tokens = tokenize('é\n"'.replace("é", '"é"') + 'x\ny" b\r\n\tc', "a.symbi")
    assert [(t.span.line, t.span.column, t.span.start) for t in tokens] == [
        (1, 1, 0),
        (2, 1, 4),
        (3, 4, 10),
        (4, 2, 14),
        (4, 3, 15),
    ]


def test_escapes():
    assert unescape(r'"\n\t\r\\\"\x\0"') == '\n\t\r\\"x0'


def test_what_an_error_quotes_is_one_short_line_of_printable_characters():
    assert quote("a\nb\u202e") == "`a\\nb\\u202e`"
    assert quote("x" * 40) == "`" + "x" * 31 + "…`"


@pytest.mark.parametrize("digits", [300, 301])
def test_a_number_has_at_most_three_hundred_digits(digits):
    text = "9" * (digits - 1) + ".5"
    if digits == 300:
        assert kinds(text)[0] == (Kind.NUMBER, text)
    else:
        with pytest.raises(DslError, match="at most 300 digits"):
            tokenize(text, "a.symbi")


def test_a_long_string_is_read_in_one_go():
    text = '"' + "\\x" * 200_000 + '"'
    assert kinds(text)[0][0] is Kind.STRING
    with pytest.raises(DslError, match="not closed"):
        tokenize(text[:-1], "a.symbi")

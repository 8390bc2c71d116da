"""`memory` blocks act, and `remember` and `recall` are checked where they stand."""

import pytest

from symbi.dsl.check import check
from symbi.dsl.compile import compile_file
from symbi.dsl.format import format_text
from symbi.dsl.parser import parse
from symbi.dsl.spec import MemorySpec

AGENT = "agent a() { with { 1 } }"
BLOCK = 'memory notes { store sqlite, retention "90d", search { vector_weight 0.6, keyword_weight 0.2 } }'


def terms(text):
    text = f"{text}\n{AGENT}"
    return compile_file(parse(text, "t.symbi"), text).agents[0].memory


def errors(text):
    return [found for found in check(parse(f"{text}\n{AGENT}", "t.symbi")) if found.severity == "error"]


def test_a_block_says_how_long_and_how_things_are_looked_for():
    spec = terms(BLOCK)
    assert (spec.name, spec.retention_days) == ("notes", 90)
    assert spec.vector_weight == pytest.approx(0.75)
    assert spec.keyword_weight == pytest.approx(0.25)
    assert terms("memory notes { retention 12h }").retention_days == 0.5
    assert terms("memory notes { search { keyword_weight 1 } }").vector_weight == 0
    assert terms("") == MemorySpec()


def test_a_block_is_formatted_and_read_again_as_it_was():
    formatted = format_text(f"{BLOCK}\n{AGENT}", "t.symbi")
    assert "memory notes {" in formatted
    assert compile_file(parse(formatted, "t.symbi"), formatted).agents[0].memory == terms(BLOCK)


@pytest.mark.parametrize("written", ["1s", "90s", "15m"])
def test_a_retention_that_is_short_is_told_to_be_written_without_quotes(written):
    (error,) = errors(f'memory m {{ retention "{written}" }}')
    assert f"write `{written}` without quotes" in error.hint
    assert errors(f"memory m {{ retention {written} }}") == []


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("memory m { store markdown }", "memories are kept in `sqlite`, not in `markdown`"),
        ('memory m { path "data" }', "a memory has no path of its own"),
        ('memory m { retention "soon" }', '`retention "soon"` is no time: in quotes it is a whole number, and `h`'),
        ('memory m { retention "1s" }', '`retention "1s"` is no time: in quotes it is a whole number, and `h`'),
        ('memory m { retention "1.5h" }', '`retention "1.5h"` is no time'),
        ('memory m { retention "30" }', '`retention "30"` is no time'),
        ('memory m { retention "" }', '`retention ""` is no time'),
        ("memory m { retention soon }", "`retention` is a time, or a number of days"),
        ("memory m { retention 0s }", "`retention` is more than no time at all"),
        ('memory m { retention "0d" }', "`retention` is more than no time at all"),
        ('memory m { retention "36501d" }', "`retention` is at most 36500 days"),
        ('memory m { retention "99999999999999999999y" }', "`retention` is at most 36500 days"),
        ("memory m { search { vector_weight 2 } }", "`vector_weight` is a number from 0 to 1"),
        ("memory m { search { vector_weight 0, keyword_weight 0 } }", "one of the two weights"),
        ("memory m { }\nmemory n { }", "the file has a `memory` block already"),
    ],
)
def test_what_nothing_would_carry_out_is_refused_at_its_place(block, message):
    (error,) = errors(block)
    assert message in error.message
    assert error.place.line == block.count("\n") + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('remember("x", kind = "longterm")', "`longterm` is no kind of memory"),
        ('remember("x", form = "rumour")', "`rumour` is no form of memory"),
        ('recall("x", of = "no such name!")', "is not the name of an agent"),
        ('recall("x", colour = 1)', "`recall` has no parameter `colour`"),
        ("remember()", "`remember` needs `content`"),
    ],
)
def test_a_call_that_cannot_be_right_is_refused(call, message):
    found = check(parse(f"agent a() {{ with {{ {call}; 1 }} }}", "t.symbi"))
    assert any(message in one.message for one in found)


def test_capabilities_tell_remembering_from_other_data():
    text = 'agent a() { capabilities = [recall] with { remember(1); recall("x") } }'
    found = check(parse(text, "t.symbi"))
    assert [one.message for one in found if "remember" in one.message]
    assert (
        "resource is Memory"
        in compile_file(parse(text.replace("remember(1); ", ""), "t.symbi"), text).agents[0].policies[0].text
    )

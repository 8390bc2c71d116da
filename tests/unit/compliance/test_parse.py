"""Frameworks as files: what comes with Symbi can be read, and whatever is wrong has a place and a reason."""

import pytest

from symbi.compliance.framework import AtLeast, Every, InForce, Paired, Source
from symbi.compliance.library import NAMES, framework_named, framework_text, template
from symbi.compliance.parse import parse_framework
from symbi.errors import InputError

GOOD = """\
[framework]
id = "own"
title = "Own"
citation = "Policy"
about = "All."

[[controls]]
id = "A-1"
title = "One"
citation = "1"
question = "Is it?"

[[controls.evidence]]
id = "seen"
says = "It was seen."
types = ["decision.allow"]
where = { "details.action" = "ReadClock" }
test = { at_least = 2 }

[[controls]]
id = "A-2"
title = "Two"
citation = "2"
question = "And this?"
cannot_know = ["that"]

[[controls.evidence]]
id = "set"
says = "It was set."
from = "configuration"
key = "security.enforce_policies"
test = { is = "true" }
"""


def test_a_framework_is_read_whole():
    framework = parse_framework("own.toml", GOOD)
    assert [control.id for control in framework.controls] == ["A-1", "A-2"]
    (seen,), (kept,) = (control.claims for control in framework.controls)
    assert (seen.source, seen.test) == (Source.TRAIL, AtLeast(2))
    assert isinstance(kept.test, InForce)
    assert framework.controls[1].cannot_know == ("that",)
    assert parse_framework("own.toml", GOOD + "# one more byte\n").digest != framework.digest


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_with_symbi_is_read_and_says_what_it_looks_for(name):
    framework = framework_named(name)
    assert framework.id == name
    assert len(framework.controls) >= 15
    for control in framework.controls:
        assert control.claims or control.cannot_know
        assert all(claim.looked_for() for claim in control.all_claims())


def test_the_template_is_a_framework_of_ones_own():
    framework = parse_framework("mine.toml", template("mine"))
    assert framework.id == "mine"
    kinds = {type(claim.test) for control in framework.controls for claim in control.claims}
    assert kinds >= {Every, InForce, Paired}
    with pytest.raises(InputError, match="`No Id` is no id"):
        template("No Id")


def test_the_example_of_the_reference_is_a_framework(root):
    page = (root / "docs/reference/frameworks.md").read_text("utf-8")
    framework = parse_framework("frameworks.md", page.split("```toml\n")[1].split("```")[0])
    assert isinstance(framework.controls[0].claims[0].test, Paired)
    assert framework.controls[0].applies is not None


CHANGES = [
    ("no TOML", 'id = "own"', "id = own", 2, "not TOML"),
    ("unknown top key", "[framework]", "[frameworks]", 1, "unknown key `frameworks`"),
    ("unknown key of the head", 'about = "All."', 'about = "All."\nlogo = "x"', 6, "unknown key `framework.logo`"),
    ("bad framework id", 'id = "own"', 'id = "Own!"', 2, "`Own!` is no id"),
    ("no title", 'title = "Own"\n', "", 1, "`framework.title` is missing"),
    ("unknown key of a control", 'title = "Two"', 'titel = "Two"', 22, "unknown key `controls[2].titel`"),
    ("bad control id", 'id = "A-2"', 'id = "A 2"', 21, "`A 2` is no id"),
    ("control id twice", 'id = "A-2"', 'id = "A-1"', 21, "the id `A-1` is there twice"),
    ("question empty", 'question = "And this?"', 'question = " "', 24, "`controls[2].question` is empty"),
    ("no evidence at all", GOOD[GOOD.index('[[controls.evidence]]\nid = "set"') :], "", 21, ""),
    ("unknown key of evidence", 'says = "It was set."', 'say = "x"', 29, "unknown key `controls[2].evidence[1].say`"),
    ("bad evidence id", 'id = "seen"', 'id = "Seen"', 14, "`Seen` is no id"),
    ("unknown event type", '"decision.allow"', '"decision.alow"', 16, "unknown event type `decision.alow`"),
    ("no event types", 'types = ["decision.allow"]\n', "", 13, "`controls[1].evidence[1].types` is missing"),
    ("types no list", 'types = ["decision.allow"]', 'types = "decision.allow"', 16, "must be a list of texts"),
    ("bad path", '"details.action" =', '"detail.action" =', 17, "`detail.action` is no path into an event"),
    ("path with a hole", '"details.action" =', '"details..action" =', 17, "`details..action` is no path"),
    ("unknown source", 'from = "configuration"', 'from = "config"', 30, "`config` holds no evidence"),
    ("types with configuration", 'key = "sec', 'types = ["run.started"]\nkey = "sec', 31, "`types` does not go with"),
    ("key with trail", "where = {", 'key = "x"\nwhere = {', 17, "`key` does not go with"),
    ("no test", "test = { at_least = 2 }\n", "", 13, "`controls[1].evidence[1].test` is missing"),
    ("two tests", "{ at_least = 2 }", "{ at_least = 2, none = true }", 18, "has one of at_least, none"),
    ("unknown test", "{ at_least = 2 }", "{ atleast = 2 }", 18, "unknown key `controls[1].evidence[1].test.atleast`"),
    ("a count of nothing", "{ at_least = 2 }", "{ at_least = 0 }", 18, "must be a whole number from 1 up"),
    ("a count that is true", "{ at_least = 2 }", "{ at_least = true }", 18, "must be a whole number from 1 up"),
    ("none that is false", "{ at_least = 2 }", "{ none = false }", 18, "`none` is true"),
    ("met by nothing", "{ at_least = 2 }", "{ none = true }", 8, "would be met by an empty trail"),
    ("days alone", "{ at_least = 2 }", "{ none = true, each_days = 3 }", 18, "`each_days` goes with `at_least`"),
    ("every of nothing", "{ at_least = 2 }", "{ every = {} }", 18, "`every` names what holds"),
    ("pair without join", "{ at_least = 2 }", '{ followed_by = { types = ["run.finished"] } }', 18, "same` is missing"),
    ("pair by a star", "{ at_least = 2 }", '{ followed_by = { types = ["run.finished"], same = ["details.*"] } }', 18, "no path to one value"),
    ("differ of one", "{ at_least = 2 }", '{ preceded_by = { types = ["run.started"], same = ["run_id"], differ = ["run_id"] } }', 18, "`differ` has two paths"),
    ("too long", "{ at_least = 2 }", '{ followed_by = { types = ["run.finished"], same = ["run_id"], within_s = 99999999 } }', 18, "`within_s` is at most"),
    ("condition of nothing", '{ is = "true" }', "{}", 27, "test` is missing"),
    ("unknown condition", '{ is = "true" }', '{ equals = "true" }', 32, "unknown key `controls[2].evidence[1].test.equals`"),
    ("a float", '{ is = "true" }', "{ is = 1.5 }", 32, "must be a text, a whole number, true, false"),
    ("present what", '{ is = "true" }', '{ present = "yes" }', 32, "`present` is true or false"),
    ("applies without a word", 'cannot_know = ["that"]', 'applies_when = { types = ["run.started"] }', 25, "applies_when.otherwise` is missing"),
    ("cannot know a number", 'cannot_know = ["that"]', "cannot_know = [1]", 25, "must be a list of texts"),
    ("control characters", 'title = "Two"', 'title = "T\\u001bwo"', 22, "has control characters"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "words"), [pytest.param(*case[1:], id=case[0]) for case in CHANGES])
def test_what_is_wrong_has_a_place_and_a_reason(old, new, line, words):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if not words:  # without evidence, what cannot be known is enough
        assert parse_framework("own.toml", text).controls[1].claims == ()
        text, words = text.replace('cannot_know = ["that"]\n', ""), "control `A-2` names no evidence"
    with pytest.raises(InputError) as raised:
        parse_framework("own.toml", text)
    assert raised.value.code == "compliance.framework"
    assert words in raised.value.message
    assert (raised.value.place.file, raised.value.place.line) == ("own.toml", line)


def test_nesting_without_end_is_refused():
    with pytest.raises(InputError):
        parse_framework("deep.toml", "a = " + "[" * 5000 + "]" * 5000)


def test_there_is_no_framework_of_another_name():
    with pytest.raises(InputError, match="there is no framework `hippa`") as raised:
        framework_text("hippa")
    assert "hipaa" in raised.value.hint

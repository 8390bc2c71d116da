"""What a file alone tells of messages: addresses that are none, and inputs that an agent of the file does not take."""

import pytest

from symbi.dsl.check import check
from symbi.dsl.parser import parse

OTHERS = """
agent b(n: int, m: Optional<String>) { with { return n; } }
agent c(one: String) { with { return one; } }
agent d { with { return 1; } }
"""


def found(body, capabilities=""):
    """Findings of agent `a`, whose body stands on line 2."""
    text = f"{OTHERS.strip().splitlines()[0]}\nagent a(x: String) {{ {capabilities} with {{ {body} }} }}\n"
    return check(parse(text + "\n".join(OTHERS.strip().splitlines()[1:]), "t.symbi"))


@pytest.mark.parametrize(
    "body",
    [
        'send("b", { n: 1 });',
        'send("b", { n: 1, m: "m" }, after = 5m);',
        'send("b/17", { n: 1 }, 30);',
        'send(agent = "c", message = "word");',
        'ask("c", [1, 2]);',
        'ask("d", {});',
        "ask(x, x);",
        'ask("elsewhere", 5);',
        'send("a", "later", after = 1h);',
        'ask("a/2", "another of us");',
        'publish("incidents.open", { any: "thing" });',
        "publish(x, 1);",
    ],
)
def test_what_can_be_sent_is_taken(body):
    assert found(body) == ()


@pytest.mark.parametrize(
    ("body", "code", "message", "hint"),
    [
        ('send(§"no name", 1);', "recipient", "`no name` is not the name of an agent", "as declared"),
        ('ask(§"b/", {});', "recipient", "`b/` is not the name of an agent", ""),
        ('ask(§"a", "x");', "recipient", "agent `a` cannot ask itself", "send it a message"),
        ('send("b", { n: 1, §q: 2 });', "message", "agent `b` has no input `q`", "it takes n: int, m: Optional"),
        ('ask("b", §{ m: "m" });', "message", "agent `b` needs the input `n`", "it takes n: int"),
        ('ask("b", §5);', "message", "agent `b` has 2 inputs", "it takes n: int"),
        ('ask("d", §"x");', "message", "agent `d` has 0 inputs", "it takes nothing"),
        ('send("c", "x", after = §"soon");', "after", "`after` is a duration", "after = 5m"),
        ('send("c", "x", after = §400d);', "after", "a year later at most", ""),
        ('publish(§"a..b", 1);', "topic", "`a..b` is not the name of a topic", "incidents.open"),
        ('publish(§"a.>", 1);', "topic", "`a.>` is not the name of a topic", "those who listen"),
        ('§publish("a.b");', "arguments", "`publish` needs `message`", "publish(topic, message)"),
        ('ask("c", "x", §after = 5m);', "arguments", "`ask` has no parameter `after`", ""),
        ('send("c", §vault://a/b);', "vault", "a secret can be handed to a tool", ""),
    ],
)
def test_what_cannot_is_told_at_its_place(body, code, message, hint):
    (error,) = [one for one in found(body.replace("§", "")) if one.severity == "error"]
    assert (error.code, error.place.line) == (f"dsl.{code}", 2)
    assert message in error.message
    assert hint in error.hint
    assert error.place.column == len("agent a(x: String) {  with { ") + body.index("§") + 1


def test_a_name_that_is_nearly_one_of_the_file_is_a_warning():
    text = 'agent reporter(x: int) { with { return x; } } agent a { with { return ask("reportr", { x: 1 }); } }'
    (warning,) = check(parse(text, "t.symbi"))
    assert (warning.severity, warning.hint) == ("warning", "did you mean `reporter`?")


def test_functions_of_the_file_and_of_the_agent_are_checked_too():
    text = (
        'function f() { ask("b", 1); } agent a { function g() { ask("b", 2); } with { return [f(), g()]; } } ' + OTHERS
    )
    errors = check(parse(text, "t.symbi"))
    assert [one.code for one in errors] == ["dsl.message", "dsl.message"]


@pytest.mark.parametrize("word", ["send", "ask", "publish"])
def test_capabilities_list_each_by_its_own_word(word):
    calls = {"send": 'send("c", "x");', "ask": 'ask("c", "x");', "publish": 'publish("t", "x");'}
    bound = f'capabilities = ["{word}"]'
    for name, call in calls.items():
        unlisted = [one for one in found(call, bound) if one.code == "dsl.capability"]
        assert bool(unlisted) is (name != word)

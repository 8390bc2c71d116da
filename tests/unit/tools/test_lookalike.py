"""Names that look like others, judged by themselves."""

import pytest

from symbi.tools.lookalike import judge_names, keys_of, look_alike, mixed_scripts, skeleton, wrong_with_text
from symbi.tools.port import ToolDefinition


def tool(name, title=None, **properties):
    return ToolDefinition("mail", name, "Does it.", {"type": "object", "properties": properties}, title=title)


def reasons(*definitions, taken=(), shared=(), known=()):
    by_key = {key: name for name in taken for key in keys_of(name.partition(".")[2])}
    return {place: one.reason for place, one in judge_names(definitions, by_key, shared, known).items()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("send_mail", "sendMail"),
        ("send-mail", "SEND.MAIL"),
        ("list", "Iist"),
        ("list", "1ist"),
        ("log0", "logO"),
        ("confirm", "confirrn"),
        ("pay", "p\u0430y"),
        ("scope", "\uff53\uff43\uff4f\uff50\uff45"),
        ("send", "s\u200bend"),
        ("file", "\ufb01le"),
        ("exec", "\U0001d41e\U0001d431\U0001d41e\U0001d41c"),
    ],
)
def test_names_that_look_alike(one, other):
    assert look_alike(one, other)
    assert look_alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("send", "sent"), ("read", "reed"), ("a1", "a2"), ("get_user", "get_users")]
)
def test_names_that_do_not(one, other):
    assert not look_alike(one, other)


def test_a_skeleton_is_what_is_seen():
    assert skeleton("s\u0435nd\u200b") == skeleton("send")
    assert skeleton("\u202esend") == "send"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Send\u202e mail", "U+202E, which turns the direction"),
        ("Send\u200b mail", "U+200B, which nobody sees"),
        ("Send\U000e0061", "U+E0061, which nobody sees"),
        ("P\u0430yment", "letters of cyrillic and latin in one word"),
        ("\u03b1dmin", "letters of greek and latin"),
        ("Send\x1b[2J", "U+001B"),
    ],
)
def test_a_title_that_deceives_is_refused_with_the_reason(text, words):
    reason = wrong_with_text(text, "its title")
    assert words in reason
    assert reason.isascii()
    assert reason.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "Send mail",
        "Écrire à Zoë",
        "\U0001f6e0\ufe0f Tools",
        "\U0001f469\u200d\U0001f4bb",
        "ファイルを読む Read",
        "Σ of all",
        "",
        "Прочитать файл",
    ],
)
def test_an_honest_title_is_left_alone(text):
    assert wrong_with_text(text, "its title") == ""
    assert mixed_scripts(text) == ()


def test_a_name_with_a_foreign_letter_says_which_and_what_it_looks_like():
    (reason,) = reasons(tool("s\u0435nd")).values()
    assert reason == "the name `s<U+0435>nd` holds U+0435, which is not ASCII and looks like `e`"


@pytest.mark.parametrize("name", ["symbi_run", "Symbi.status", "syrnbi-run", "s-y-m-b-i"])
def test_names_of_the_runtimes_own_are_refused(name):
    assert "the runtime's own" in reasons(tool(name))[0]


def test_a_name_of_an_effect_is_refused_and_a_common_word_is_not():
    assert "that of an effect" in reasons(tool("ExecuteCode"))[0]
    assert reasons(tool("send_message"), tool("run"), tool("execute")) == {}


def test_two_names_of_a_server_that_look_alike_are_both_refused_and_one_that_was_accepted_stays():
    both = [tool("send_mail"), tool("sendMail"), tool("other")]
    assert set(reasons(*both)) == {0, 1}
    assert set(reasons(*both, known=["send_mail"])) == {1}


def test_the_name_of_another_servers_tool_is_refused_for_the_later_one_unless_the_operator_says_so():
    assert reasons(tool("search"), taken=["web.search"]) == {0: "the name `search` is that of tool `web.search`"}
    assert reasons(tool("seArch"), taken=["web.search"]) == {
        0: "the name `seArch` looks like that of tool `web.search`"
    }
    assert reasons(tool("search"), taken=["web.search"], shared=["search"]) == {}
    assert reasons(tool("search"), taken=["web.search"], shared=["*"]) == {}
    assert reasons(tool("search"), taken=["web.search"], known=["search"]) == {}
    assert reasons(tool("search"), taken=["web.search"], shared=["other"]) != {}


def test_names_of_arguments_are_looked_at_at_any_depth():
    hidden = {"type": "object", "properties": {"to\u200b": {"type": "string"}}}
    assert "the name of an argument holds U+200B" in reasons(tool("send", to=hidden))[0]


def test_a_name_that_can_name_no_tool_is_left_to_who_refuses_those():
    assert reasons(tool("x" * 200), tool("a b"), tool("")) == {}

"""However policies are laid out, each is found once, whole, and on its line."""

from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.errors import PolicySyntaxError
from symbi.policy.source import PolicySource, parse, split

POLICIES = st.sampled_from(
    [
        "permit(principal, action, resource);",
        'forbid(principal, action, resource) when { "a;b" == "//" };',
        '@doc("x \\" ; // y")\npermit(principal,\n  action, // ; "\n  resource);',
    ]
)
GAPS = st.lists(st.sampled_from([" ", "\n", "\r\n", "\t", '// a ; " b\n', "// c\n\n"]), max_size=4).map("".join)


@settings(deadline=None)
@given(st.lists(st.tuples(GAPS, POLICIES), max_size=6), GAPS)
def test_policies_are_found_in_order_with_their_lines(parts, tail):
    text, lines = "", []
    for gap, policy in parts:
        text += gap
        lines.append(text.count("\n") + 1)
        text += policy
    statements = list(split(PolicySource("f", text + tail)))
    assert [statement.text for statement in statements] == [policy for _, policy in parts]
    assert [statement.place.line for statement in statements] == lines
    assert all(parse(statement)["effect"] in {"permit", "forbid"} for statement in statements)


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from(list('permit(principal,action,resource)when{};"/\\\n\r @&|.=!1é')), max_size=60))
def test_any_text_is_read_or_refused_with_a_place_inside_of_it(text):
    source = PolicySource("f", f"permit(principal, action, resource) when {{ {text} }};")
    try:
        for statement in split(source):
            parse(statement)
    except PolicySyntaxError as error:
        place = error.place
    else:
        return
    assert place is not None
    assert 1 <= place.line <= source.text.count("\n") + 1
    assert 1 <= place.column <= max(map(len, source.text.split("\n"))) + 1

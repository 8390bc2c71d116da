from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from symbi.dsl import ast
from symbi.dsl.compile import compile_file
from symbi.policy.catalog import ToolType
from symbi.policy.decision import Deny
from symbi.policy.engine import decide
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.testing.requests import SCHEMAS, call
from symbi.types import Confidentiality, Integrity, Label

TOOL = "mail.send"
CATALOGUE = [ToolType(name, schema) for name, schema in SCHEMAS.items()]
PERMIT = PolicySource("all.cedar", "permit (principal, action, resource);")
AWKWARD = ["", "x", "y", "*", "a*b", "\\", '"', "é\n", "\0", "\u202e", "x-y", "🙂"]

texts = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
wholes = st.integers(-3, 3) | st.integers(-(2**63) + 1, 2**63 - 1)
decimals = st.integers(-30_000, 30_000).map(lambda count: Decimal(count) / 10_000)


def name(*path):
    node = ast.Name(path[0])
    for step in path[1:]:
        node = ast.Index(node, ast.String(step)) if "-" in step else ast.Member(node, step)
    return node


def number(value):
    text = format(abs(value), "f") if isinstance(value, Decimal) else str(abs(value))
    if isinstance(value, Decimal) and "." not in text:
        text += ".0"
    node = ast.Number(float(text) if "." in text else int(text), text)
    return ast.Unary("-", node) if value < 0 else node


TEXT_PATHS = [
    ("to",),
    ("arguments", "cc"),
    ("context", "arguments", "to"),
    ("arguments", "x-y"),
    ("options", "deep"),
    ("principal", "owner"),
    ("tool", "server"),
]
CLOSED_PATHS = [
    (("label", "integrity"), [each.value for each in Integrity]),
    (("labels", "to", "confidentiality"), [each.value for each in Confidentiality]),
    (("principal", "trust"), ["untrusted", "standard", "trusted"]),
]
FLAGS = [("urgent",), ("resource", "verified"), ("data", "verified"), ("data", "contains_pii")]

text_path = st.sampled_from(TEXT_PATHS).map(lambda path: name(*path))
equality = st.sampled_from(["==", "!="])
order = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
string = texts.map(ast.String)


@st.composite
def closed(draw):
    path, values = draw(st.sampled_from(CLOSED_PATHS))
    chosen = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    if draw(st.booleans()):
        return ast.Binary("in", name(*path), ast.Array(tuple(ast.String(value) for value in chosen)))
    return ast.Binary(draw(equality), name(*path), ast.String(chosen[0]))


def swapped(node):
    return ast.Binary(node.op, node.right, node.left)


ordered = st.builds(ast.Binary, order, st.just(name("amount")), wholes.map(number)) | st.builds(
    ast.Binary, order, st.just(name("score")), decimals.map(number)
)
compared = (
    st.builds(ast.Binary, equality, text_path, string)
    | st.builds(ast.Binary, equality, text_path, text_path)
    | ordered
    | st.builds(ast.Binary, equality, st.just(name("urgent")), st.booleans().map(ast.Boolean))
)
tests = st.builds(
    lambda path, test, text: ast.Call(ast.Member(path, test), (ast.Argument(text),)),
    text_path,
    st.sampled_from(["contains", "starts_with", "ends_with"]),
    string,
)
lists = st.lists(string, min_size=1, max_size=3).map(lambda items: ast.Array(tuple(items)))
memberships = (
    st.builds(ast.Binary, st.just("in"), text_path, lists)
    | st.builds(ast.Binary, st.just("in"), string | text_path, st.just(name("tags")))
    | st.builds(ast.Binary, st.just("in"), string, st.sampled_from([name("secrets"), name("opaque")]))
    | st.builds(
        lambda group: ast.Binary("in", group, name("principal", "groups")),
        st.sampled_from([ast.String("ops"), ast.String("dev")]),
    )
    | st.builds(
        lambda argument: ast.Binary("in", ast.String(argument), name("arguments")),
        st.sampled_from(["to", "cc", "anything", "x-y", "never"]),
    )
)
atoms = (
    compared
    | compared.map(swapped)
    | tests
    | memberships
    | closed()
    | st.sampled_from(FLAGS).map(lambda path: name(*path))
    | st.booleans().map(ast.Boolean)
)
guards = st.recursive(
    atoms,
    lambda inner: (
        st.builds(ast.Binary, st.sampled_from(["&&", "||"]), inner, inner)
        | st.builds(ast.Unary, st.sampled_from(["!", "not"]), inner)
    ),
    max_leaves=6,
)

values = st.fixed_dictionaries(
    {},
    optional={
        "to": texts,
        "cc": texts,
        "x-y": texts,
        "amount": wholes,
        "score": decimals.map(float),
        "urgent": st.booleans(),
        "tags": st.lists(texts, max_size=2),
        "options": st.fixed_dictionaries({}, optional={"deep": texts}),
        "anything": st.none() | st.integers() | st.just([1, "a"]),
    },
)
label = st.builds(Label, st.sampled_from(Integrity), st.sampled_from(Confidentiality))
requests = st.fixed_dictionaries(
    {
        "values": values,
        "label": label,
        "to_label": label,
        "verified": st.booleans(),
        "secrets": st.lists(texts, max_size=1),
    }
)


# --- what a guard means, by its definition ----------------------------------------------------

MISSING = object()


def worth(node, given_):
    """True, False, or None where it is not known."""
    match node:
        case ast.Boolean(value=value):
            return value
        case ast.Unary(operand=operand):
            found = worth(operand, given_)
            return None if found is None else not found
        case ast.Binary(op="&&", left=left, right=right):
            sides = [worth(left, given_), worth(right, given_)]
            return False if False in sides else None if None in sides else True
        case ast.Binary(op="||", left=left, right=right):
            sides = [worth(left, given_), worth(right, given_)]
            return True if True in sides else None if None in sides else False
        case ast.Binary(op="in", left=ast.String(value=key), right=ast.Name(id="arguments")):
            return given_["values"].get(key) is not None
        case ast.Binary(op="in", left=item, right=ast.Array(items=items)):
            sides = (value_of(item, given_), [element.value for element in items])
            return None if sides[0] is MISSING else sides[0] in sides[1]
        case ast.Binary(op=op, left=left, right=right):
            return compare(op, value_of(left, given_), value_of(right, given_))
        case ast.Call(
            callee=ast.Member(object=inner, name=test), arguments=(ast.Argument(value=ast.String(value=part)),)
        ):
            whole = value_of(inner, given_)
            if whole is MISSING:
                return None
            return {
                "contains": part in whole,
                "starts_with": whole.startswith(part),
                "ends_with": whole.endswith(part),
            }[test]
        case _:
            found = value_of(node, given_)
            return None if found is MISSING else found


def compare(op, left, right):
    if MISSING in (left, right) if not isinstance(right, list) else left is MISSING:
        return None
    return {
        "==": lambda: left == right,
        "!=": lambda: left != right,
        "<": lambda: left < right,
        "<=": lambda: left <= right,
        ">": lambda: left > right,
        ">=": lambda: left >= right,
        "in": lambda: left in right,
    }[op]()


def value_of(node, given_):
    match node:
        case ast.String(value=value) | ast.Boolean(value=value):
            return value
        case ast.Number(text=text):
            return Decimal(text)
        case ast.Unary(operand=ast.Number(text=text)):
            return -Decimal(text)
    path = []
    while not isinstance(node, ast.Name):
        path.insert(0, node.name if isinstance(node, ast.Member) else node.index.value)
        node = node.object
    path.insert(0, node.id)
    values_, whole = given_["values"], joined(given_)
    fixed = {
        ("principal", "owner"): "ada",
        ("principal", "trust"): "trusted",
        ("principal", "groups"): ["ops"],
        ("tool", "server"): "mail",
        ("resource", "verified"): given_["verified"],
        ("label", "integrity"): whole.integrity.value,
        ("data", "verified"): whole.integrity is not Integrity.UNTRUSTED,
        ("data", "contains_pii"): whole.confidentiality in (Confidentiality.CONFIDENTIAL, Confidentiality.SECRET),
        ("secrets",): given_["secrets"],
        ("opaque",): ["anything"] if values_.get("anything") is not None else [],
        ("labels", "to", "confidentiality"): given_["to_label"].confidentiality.value if "to" in values_ else MISSING,
    }
    if tuple(path) in fixed:
        return fixed[tuple(path)]
    for step in [step for step in path if step not in {"context", "arguments"}]:
        values_ = values_.get(step, MISSING) if isinstance(values_, dict) else MISSING
    return Decimal(str(values_)) if isinstance(values_, int | float) and not isinstance(values_, bool) else values_


def joined(given_):
    labels = [given_["label"], *([given_["to_label"]] if "to" in given_["values"] else [])]
    integrities, confidentialities = list(Integrity), list(Confidentiality)
    return Label(
        max((each.integrity for each in labels), key=integrities.index),
        max((each.confidentiality for each in labels), key=confidentialities.index),
    )


def rule(effect, guard):
    subject = ast.Call(ast.Name("call"), (ast.Argument(ast.String(TOOL)),))
    policy = ast.Policy("p", (ast.Rule(effect, subject, guard),))
    file = ast.File("t", (ast.Agent("a", (), None, (policy,)),))
    return compile_file(file, "").agents[0].policies


def ask(policies, given_):
    labels = {"to": given_["to_label"]} if "to" in given_["values"] else {}
    # every other argument bears a label of its own, so that the joined one is known
    labels |= {key: given_["label"] for key in given_["values"] if key != "to"}
    request = call(
        TOOL,
        given_["values"],
        labels=labels,
        label=given_["label"],
        verified=given_["verified"],
        secrets=tuple(given_["secrets"]),
    )
    decision = decide(policies, request)
    assert not (isinstance(decision, Deny) and decision.errors), decision
    return not isinstance(decision, Deny)


@given(guards, st.lists(requests, min_size=1, max_size=4))
def test_an_allow_holds_where_its_guard_is_true_and_a_deny_where_it_is_not_false(guard, asked):
    permits = PolicySet.load([], rule("allow", guard), CATALOGUE)
    forbids = PolicySet.load([PERMIT], rule("deny", guard), CATALOGUE)
    for given_ in asked:
        meant = worth(guard, given_)
        assert ask(permits, given_) is (meant is True)
        assert ask(forbids, given_) is (meant is False)


@given(guards, st.sampled_from(["mail.*", "any"]))
def test_every_guard_makes_policies_that_validate_for_every_kind_of_rule(guard, what):
    argument = ast.Name("any") if what == "any" else ast.String(what)
    subject = ast.Call(ast.Name("call"), (ast.Argument(argument),))
    approval = ast.Call(ast.Name("approval"), (ast.Argument(ast.Name("ops")),))
    rules = (
        ast.Rule("allow", subject, guard),
        ast.Rule("deny", subject, guard),
        ast.Rule("require", approval, guard),
        ast.Rule("require", ast.Name("signature_verification"), guard),
        ast.Rule("audit", subject, guard),
    )
    file = ast.File("t", (ast.Agent("a", (), None, (ast.Policy("p", rules),)),))
    types = [tool for tool in CATALOGUE if tool.name.startswith("mail.")]
    for tools in ([], types):
        assert PolicySet.load([], compile_file(file, "").agents[0].policies, tools)


@given(texts.filter(bool), texts.filter(bool))
def test_no_text_leaves_its_place_in_cedar(agent_like, text):
    subject = ast.Call(ast.Name("send"), (ast.Argument(ast.String(text)),))
    guard = ast.Binary("==", name("principal", "owner"), ast.String(agent_like))
    file = ast.File("t", (ast.Agent("a", (), None, (ast.Policy("p", (ast.Rule("allow", subject, guard),)),)),))
    (made,) = compile_file(file, "").agents[0].policies
    policies = PolicySet.load([], [made], CATALOGUE)
    named = policies.by_id[made.id].names
    assert named == {("Agent", "a"), ("Action", "SendMessage"), ("Agent", text)}

"""However a file of policies, cases or a manifest is damaged, it is read, or refused with a place in it and a reason."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from symbi.errors import InputError
from symbi.policy.cases import parse_cases, run_cases
from symbi.policy.catalog import ToolType
from symbi.policy.library import BASE
from symbi.policy.lint import lint
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.testing.requests import SCHEMAS
from symbi.tools.manifest import parse_manifest

TOOLS = [ToolType(name, schema) for name, schema in SCHEMAS.items()]
EXAMPLES = Path(__file__).parents[2] / "examples"
POLICIES = [
    BASE.text,
    (
        '@id("a") @doc("x; // y")\n@redact("arguments.to")\n@cap("arguments.amount=5")\npermit (principal in Group::"g", '
        'action in [Action::"InvokeTool::mail.send", Action::"WriteLog"], resource)\nwhen { context has label && '
        'context.label.integrity like "u*r" }\nunless { [1, 2].contains(3) || -1 + 2 * 3 <= 4 };\n'
    ),
    (
        'forbid (principal is Agent, action == Action::"InvokeTool::mail.send", resource is Tool in ToolServer::"mail")\n'
        'when { context.arguments has "x-y" && if resource.verified then context.arguments["x-y"] == "\\"" else true };'
    ),
]
CASES = """\
[[case]]
name = "a"
principal = { agent = "triage", owner = "ops", groups = ["oncall"], trust = "standard" }
action = "InvokeTool::mail.send"
resource = { type = "Tool", id = "mail.send", attributes = { server = "mail", verified = true }, parents = [["ToolServer", "mail"]] }
expect = "deny"
policies = ["no"]
conditions = []

[case.context]
arguments = { to = "a@example.org", amount = 5, score = 0.5 }
labels = { to = { integrity = "untrusted", confidentiality = "public" } }

[[case]]
name = 'b'
principal.agent = "x"
action = "WriteLog"
resource = { type = "Resource", id = "log" }
context.label = { integrity = "user", confidentiality = "public" }
expect = "allow"
"""
MANIFESTS = [path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*/tools/*.toml"))]

PIECES = st.one_of(
    st.sampled_from(
        ["", '"', "'", ";", "(", ")", "{", "}", "[", "]", "\\", "//", "/*", "&&", "!", "@", "::", "=", "==", "\n", "\r", "\x00",
         "\ufeff", "\u2028", "\ud800", "\U0001f600", "9" * 30, "-", "*", "?principal", "if ", "in", "like", "((((" * 20, "1e999",
         "nan", "[[case]]", "[case]", '"""', "2026-01-01", "0x", "true", "permit", "forbid(principal,action,resource);"]
    ),
    st.text(max_size=4),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, texts: list[str]) -> str:
    """A text with some pieces cut out, put in or said twice."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 2, 7, 60])))
        piece = draw(st.one_of(PIECES, st.just(text[start:end] * 2)))
        text = text[:start] + piece + text[end:]
    return text


def refused_well(read: Callable[[], object], text: str) -> None:
    """A refusal says where and why."""
    refused: InputError | None = None
    try:
        read()
    except InputError as error:
        refused = error
    if refused is None:
        return
    assert refused.message
    assert "\n" not in refused.message
    assert refused.place is not None, refused
    assert refused.place.file == "f"
    assert 1 <= refused.place.line <= text.count("\n") + 2, refused
    assert refused.place.column >= 1


def load(text: str) -> None:
    lint(PolicySet.load([PolicySource("f", text)], (), TOOLS))


def try_cases(text: str) -> None:
    run_cases(PolicySet.load([BASE], (), TOOLS), parse_cases("f", text))


FUZZ = settings(deadline=None, max_examples=150)


@FUZZ
@given(damaged(POLICIES))
@example("permit (principal, action, resource) when { " + "!" * 500 + "true };")
@example("permit (principal, action, resource) when { " + "1 + " * 200 + "1 == 2 };")
@example('@id("\ud800") permit (principal, action, resource);')
def test_a_damaged_policy_file_is_read_or_refused_with_a_place(text: str) -> None:
    refused_well(lambda: load(text), text)


@FUZZ
@given(damaged([CASES]))
@example("case = 1")
@example("[[case]]\nname = " + "[" * 2000)
def test_a_damaged_file_of_cases_is_read_or_refused_with_a_place(text: str) -> None:
    refused_well(lambda: try_cases(text), text)


@FUZZ
@given(damaged(MANIFESTS))
@example("[tools]\nx = " + "[" * 2000)
def test_a_damaged_manifest_is_read_or_refused_with_a_place(text: str) -> None:
    refused_well(lambda: parse_manifest("f", text), text)

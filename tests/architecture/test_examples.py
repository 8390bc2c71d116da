"""The examples are as we tell others to write: checked without a finding, and in canonical form."""

from pathlib import Path

import pytest

from symbi.dsl.check import check
from symbi.dsl.compile import compile_file
from symbi.dsl.format import format_text
from symbi.dsl.parser import parse
from symbi.policy.engine import PolicySet, PolicySource

ROOT = Path(__file__).parents[2]
AGENT_FILES = sorted((ROOT / "examples").rglob("*.symbi"))
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").rglob("symbi.toml"))


def test_there_are_examples():
    assert AGENT_FILES
    assert EXAMPLES


@pytest.mark.parametrize("path", AGENT_FILES, ids=lambda path: path.name)
def test_an_agent_file_is_without_findings_and_in_canonical_form(path):
    text = path.read_text()
    assert check(parse(text, path.name)) == ()
    assert format_text(text, path.name) == text


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: path.name)
def test_the_policies_of_an_example_load_with_those_of_its_agents(folder):
    sources = [PolicySource(path.name, path.read_text()) for path in sorted(folder.rglob("*.cedar"))]
    compiled = []
    for path in sorted(folder.rglob("*.symbi")):
        file = compile_file(parse(path.read_text(), path.name), path.read_text())
        compiled += [*file.policies, *(policy for spec in file.agents for policy in spec.policies)]
    assert len(PolicySet.load(sources, compiled).policies) > len(sources)

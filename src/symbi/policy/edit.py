"""Policy sets and files without some of their policies."""

from collections.abc import Collection

from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource, split
from symbi.types import PolicyId


def without(policies: PolicySet, ids: Collection[PolicyId]) -> PolicySet:
    """The set without some policies, to see what they do; the others keep their places. Built-in ones stay.

    Raises:
        PolicySyntaxError: What is left does not load by itself.
    """
    sources = [blanked(source, policies, ids) for source in policies.sources]
    compiled = [rule for rule in policies.compiled if rule.id not in ids]
    return PolicySet.load(sources, compiled, policies.tools)


def blanked(source: PolicySource, policies: PolicySet, ids: Collection[PolicyId]) -> PolicySource:
    """A source in which some policies are blank: only their line ends are left."""
    places = {policies.by_id[name].place for name in ids if name in policies.by_id}
    if source.file not in {place.file for place in places}:
        return source
    text, at = source.text, 0
    for statement in split(source):
        start = source.text.index(statement.text, at)
        at = start + len(statement.text)
        if statement.place in places:
            text = text[:start] + "".join(c if c in "\r\n" else " " for c in statement.text) + text[at:]
    return PolicySource(source.file, text)


def removed(source: PolicySource, policies: PolicySet, ids: Collection[PolicyId]) -> PolicySource:
    """A source from which some policies are taken out, with the lines that they stood on alone."""
    blank = blanked(source, policies, ids).text.split("\n")
    lines = zip(blank, source.text.split("\n"), strict=True)
    return PolicySource(source.file, "\n".join(new for new, old in lines if new == old or new.strip()))

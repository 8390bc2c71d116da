"""Nothing of one agent's memory reaches another except what is shared and permitted; and filters mean what they say.

Agents, items, shares, policies and questions are made up. What each question gives is held against a reference that
looks at every item, one after another, and knows nothing of indexes, words, vectors or caches.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbi.context.kinds import ContextItem, ContextQuery, Form, MemoryKind
from symbi.errors import PolicyDenied
from symbi.testing.clock import ManualClock
from symbi.testing.context import SMALL, open_memory
from symbi.types import AgentId, Confidentiality, Integrity, Label

AGENTS = [AgentId(name) for name in ("anna", "ben", "anna/two")]
WORDS = ("red", "green", "blue", "Straße")
TAGS = ("x", "y")
LABELS = (
    Label(),
    Label(Integrity.UNTRUSTED),
    Label(confidentiality=Confidentiality.SECRET),
    Label(subjects=("jane@example.com",)),
)
few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Kept:
    agent: AgentId
    item: ContextItem
    at_ms: int
    id: str


agents = st.sampled_from(AGENTS)
items = st.builds(
    ContextItem,
    content=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
    kind=st.sampled_from(list(MemoryKind)),
    tags=st.lists(st.sampled_from(TAGS), max_size=2).map(tuple),
    importance=st.sampled_from([0.0, 0.5, 1.0]),
    form=st.sampled_from(list(Form)),
    label=st.sampled_from(LABELS),
)
queries = st.builds(
    ContextQuery,
    about=st.sampled_from(["", "", "red blue"]),
    text=st.sampled_from(["", "", "red", "GREEN", "strasse red"]),
    kinds=st.lists(st.sampled_from(list(MemoryKind)), max_size=2).map(tuple),
    forms=st.lists(st.sampled_from(list(Form)), max_size=1).map(tuple),
    tags=st.lists(st.sampled_from(TAGS), max_size=1).map(tuple),
    since_ms=st.none() | st.integers(0, 12),
    until_ms=st.none() | st.integers(0, 12),
    min_importance=st.sampled_from([0.0, 0.5]),
    limit=st.sampled_from([1, 3, 100]),
    of=st.sampled_from([AgentId(""), *AGENTS]),
)
pairs = st.tuples(st.sampled_from(["anna", "ben"]), st.sampled_from(["anna", "ben"]))
permits = st.frozensets(pairs, min_size=2)


def policies(permitted, trusting):
    lines = ['permit (principal, action == Action::"WriteData", resource);']
    lines += [
        f'permit (principal == Agent::"{who}", action == Action::"ReadData", resource == Memory::"{whose}");'
        for who, whose in sorted(permitted)
    ]
    if not trusting:
        lines.append(
            'forbid (principal, action == Action::"ReadData", resource) when { context.label.integrity == "untrusted" };'
        )
    return "\n".join(lines)


def declared(agent):
    return agent.partition("/")[0]


def reference(kept, reader, query, permitted, trusting, start):
    """What a question gives: a look at every item, newest first; None where the reader may not ask at all."""
    space = query.of or reader
    if (declared(reader), declared(space)) not in permitted:
        return None
    found = {}
    for one in kept:
        if one.agent == space:
            found[one.id] = one  # what was kept again counts as it was kept last
    fitting = [
        one
        for one in sorted(found.values(), key=lambda one: -kept.index(one))
        if (space == reader or one.item.kind is MemoryKind.SHARED)
        and (trusting or one.item.label.integrity is not Integrity.UNTRUSTED)
        and (not query.kinds or one.item.kind in query.kinds)
        and (not query.forms or one.item.form in query.forms)
        and set(query.tags) <= set(one.item.tags)
        and (query.since_ms is None or one.at_ms >= start + query.since_ms)
        and (query.until_ms is None or one.at_ms < start + query.until_ms)
        and one.item.importance >= query.min_importance
        and {word.casefold() for word in query.text.split()} <= {word.casefold() for word in one.item.content.split()}
    ]
    return [one.id for one in fitting]


def shifted(query, start):
    from dataclasses import replace  # noqa: PLC0415 - of this helper alone

    return replace(
        query,
        since_ms=None if query.since_ms is None else start + query.since_ms,
        until_ms=None if query.until_ms is None else start + query.until_ms,
    )


@few
@given(
    st.lists(st.tuples(agents, items), min_size=1, max_size=10),
    st.lists(st.tuples(agents, queries), min_size=1, max_size=8),
    permits,
    st.booleans(),
    st.booleans(),
)
def test_no_item_crosses_and_filters_equal_a_look_at_every_item(writes, questions, permitted, trusting, copied):
    async def play(folder):
        clock = ManualClock()
        async with open_memory(policies(permitted, trusting), keys=folder, clock=clock, config=SMALL) as open_:
            memory = open_.memory
            start, kept = memory.now_ms, []
            for agent, item in writes:
                id_ = await memory.store_context(agent, item)
                before = [one for one in kept if one.id == id_]
                importance = max([item.importance, *(one.item.importance for one in before)])
                merged = ContextItem(item.content, item.kind, item.tags, importance, item.form, item.label)
                kept.append(Kept(agent, merged, memory.now_ms, id_))
                clock.advance(0.001)
            if copied:  # what is brought back is found as before
                for agent in {agent for agent, _ in writes}:
                    made = await open_.keeping.checkpoint(agent)
                    await open_.keeping.restore(agent, made.id)
            crossing = [
                (who, ContextQuery(about="red blue", of=whose, limit=100)) for who in AGENTS for whose in AGENTS
            ]
            crossing += [(who, ContextQuery(limit=100)) for who in AGENTS]  # each the same question, about its own
            for reader, query in (*questions, *crossing, *questions, *crossing):  # the second time, the cache answers
                wanted = reference(kept, reader, query, permitted, trusting, start)
                try:
                    found = [one.id for one in await memory.retrieve_context(reader, shifted(query, start))]
                except PolicyDenied:
                    assert wanted is None
                    continue
                assert wanted is not None
                if not query.about:
                    assert found == wanted[: query.limit]
                elif query.text or query.tags:
                    assert len(found) == min(query.limit, len(wanted))
                assert set(found) <= set(wanted)
                for point in open_.index.points.values():
                    owner = next(one.agent for one in kept if one.id == str(point.id))
                    assert (point.namespace.name, point.namespace.part) == (
                        owner.partition("/")[0],
                        owner.partition("/")[2],
                    )

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(play, Path(folder))

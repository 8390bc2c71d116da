"""Whoever asks, over random documents, classifications and policies: nobody finds, counts or cites what policy keeps from them."""

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.errors import PolicyDenied
from symbi.knowledge.rag import Wanted
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import CollectionTerms, Rule, Rules
from symbi.testing.knowledge import open_knowledge
from symbi.types import AgentId, Confidentiality, Principal

WRITER = Principal(AgentId("writer"))
OPEN = (Confidentiality.PUBLIC, Confidentiality.INTERNAL)
WORDS = ("disk", "mail", "queue", "backup", "salary")
DOCUMENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["ada", "ben", "eve"]),
        st.sampled_from(OPEN),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=8,
)
GRANTS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["ada", "ben", "eve"]), st.sampled_from(OPEN)), max_size=4
)


def policies(grants):
    permits = [
        f'@id("g{number}") permit (principal == Agent::"reader", action == Action::"ReadData", resource == Knowledge::"{collection}") '
        f'when {{ resource.owner == "{owner}" && resource.classification == "{classification.value}" }};'
        for number, (collection, owner, classification) in enumerate(grants)
    ]
    return "\n".join(['@id("w") permit (principal, action == Action::"WriteData", resource);', *permits])


TEXTS = st.lists(st.lists(st.sampled_from((*WORDS, "log_file", "# disks")), min_size=1, max_size=12), max_size=6)


@given(
    mine=TEXTS.filter(bool),
    others=TEXTS,
    question=st.lists(st.sampled_from((*WORDS, "log_file")), min_size=1, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_what_may_not_be_read_changes_no_score_and_no_order(mine, others, question):
    rules = Rules({"a": CollectionTerms(owner="ada")}, (Rule("eve", "eve*", owner="eve"),))
    told = policies([("a", "ada", Confidentiality.INTERNAL)])

    async def ask(withheld):
        async with open_knowledge(told, rules=rules, bar=0.0) as opened:
            for name, texts in (("eve", withheld), ("ada", mine)):
                for number, words in enumerate(texts):
                    text = f"{number}\n\n" + "\n\n".join(words)
                    await opened.knowledge.put(WRITER, "a", f"{name}{number}.md", text.encode())
            found = await opened.knowledge.search(
                Reader(Principal(AgentId("reader"))), " ".join(question), Wanted(k=50)
            )
            return [(one.citation.chunk_id, one.score, one.parts, one.similarity) for one in found.passages]

    assert anyio.run(ask, others) == anyio.run(ask, [])


@given(documents=DOCUMENTS, grants=GRANTS, question=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
@settings(max_examples=12, deadline=None)
def test_nobody_finds_what_policy_keeps_from_them(documents, grants, question):
    rules = Rules(
        {"a": CollectionTerms(), "b": CollectionTerms()},
        tuple(
            Rule(f"r{number}", f"{number}.txt", owner=owner, classification=level)
            for number, (_, owner, level, _) in enumerate(documents)
        ),
    )

    async def ask():
        async with open_knowledge(policies(grants), rules=rules, bar=0.0) as opened:
            for number, (collection, _, _, words) in enumerate(documents):
                await opened.knowledge.put(WRITER, collection, f"{number}.txt", " ".join(words).encode())
            reader = Reader(Principal(AgentId("reader")))
            try:
                result = await opened.knowledge.search(reader, " ".join(question), Wanted(k=50))
                answer = await opened.knowledge.answer(reader, " ".join(question))
            except PolicyDenied:
                return None, ()
            return result, answer.passages

    result, cited = anyio.run(ask)
    levels = {
        "public": Confidentiality.INTERNAL,
        "internal": Confidentiality.INTERNAL,
    }  # a collection is internal at least
    may = {
        f"{number}.txt"
        for number, (collection, owner, level, _) in enumerate(documents)
        if (collection, owner, levels[level.value]) in grants
    }
    if result is None:
        assert not may
        return
    assert may
    found = {one.citation.source for one in result.passages}
    assert found <= may
    assert {one.citation.source for one in cited} <= may
    # Everything that may be read and holds a word of the question is found: nothing that may not be takes its place.
    assert found >= {name for name in may if set(documents[int(name[:-4])][3]) & set(question)}
    counts = next(stage.facts for stage in result.trace.stages if stage.name == "retrieval")
    assert counts["by_vectors"] <= len(may)
    assert counts["by_words"] <= len(may)

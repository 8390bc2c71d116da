"""A document that changes while it is searched for is found as it was or as it is, and only by whom policy lets read that."""

import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.errors import PolicyDenied
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import CollectionTerms, Rule, Rules
from symbi.policy.engine import PolicySet, PolicySource
from symbi.testing.gate import ALLOW_ALL
from symbi.testing.knowledge import open_knowledge
from symbi.types import AgentId, Confidentiality, Principal

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))
READER = Reader(Principal(AgentId("reader"), owner="ada"))
BEFORE = b"# Mail\n\nMail that bounces stands in the queue.\n"
AFTER = b"# Mail\n\nMail of the silo: the code is 0000, and more.\n"
NO_SECRETS = """
@id("write") permit (principal == Agent::"symbi.operator", action == Action::"WriteData", resource);
@id("read") permit (principal, action == Action::"ReadData", resource) when { resource.classification != "secret" };
"""
WRITES = '@id("write") permit (principal, action == Action::"WriteData", resource);'


def classified(level):
    return Rules({"ops": CollectionTerms(classification=level)})


class Between:
    """A log of which one reading, counted from the next, is preceded by something else."""

    def __init__(self, log, number, work):
        self.log, self.left, self.work = log, number, work

    def __getattr__(self, name):
        return getattr(self.log, name)

    async def read(self, work):
        self.left -= 1
        if self.left == 0:
            await self.work()
        return await self.log.read(work)


async def test_what_became_secret_while_it_was_searched_for_is_not_read_by_the_decision_on_what_it_was(tmp_path):
    for number in range(1, 7):
        keys = FileKeyStore(tmp_path / f"keys{number}")
        async with open_knowledge(NO_SECRETS, rules=classified(Confidentiality.CONFIDENTIAL), keys=keys) as opened:
            knowledge, rooms = opened.knowledge, opened.knowledge.rooms
            await knowledge.put(OPERATOR, "ops", "mail.md", BEFORE)
            log, changed = rooms.log, []

            async def change(knowledge=knowledge, rooms=rooms, log=log, changed=changed):
                object.__setattr__(rooms, "log", log)
                object.__setattr__(rooms, "rules", classified(Confidentiality.SECRET))
                changed.append(await knowledge.put(OPERATOR, "ops", "mail.md", AFTER))

            object.__setattr__(rooms, "log", Between(log, number, change))
            try:
                found = [one.text for one in (await knowledge.search(READER, "mail that bounces")).passages]
            except PolicyDenied:  # it was secret before it was decided on
                found = []
            assert found in ([], ["Mail that bounces stands in the queue."])
            if not changed:  # a search has no more readings than these
                assert found
                assert number > 3
                return
    raise AssertionError("a search reads more often than this looks")


async def test_what_policy_forbids_while_it_is_searched_for_is_not_told():
    for number in range(1, 7):
        async with open_knowledge(ALLOW_ALL) as opened:
            knowledge, rooms, changed = opened.knowledge, opened.knowledge.rooms, []
            await knowledge.put(OPERATOR, "ops", "mail.md", BEFORE)

            async def change(engine=opened.gate.engine, changed=changed):
                changed.append(engine.replace(PolicySet.load([PolicySource("test.cedar", WRITES)])))

            object.__setattr__(rooms, "log", Between(rooms.log, number, change))
            try:
                found = (await knowledge.search(READER, "mail that bounces")).passages
            except PolicyDenied:
                assert changed
                continue
            assert found
            assert not changed, "it was read by a decision that holds no longer"
            assert number > 3
            return
    raise AssertionError("a search reads more often than this looks")


JANE = Rule("jane", "docs/pay*", subjects=("jane@example.com",))
SECRET = Rule("pay", "docs/pay*", classification=Confidentiality.SECRET)
SKIPPED = Rule("pay", "docs/pay*", skip=True)
BROKEN = b"\x00 is no text"


@pytest.mark.parametrize(
    ("rules", "data", "left"),
    [
        (Rules(rules=(SECRET,)), BROKEN, ["docs/mail.txt"]),
        (Rules(rules=(JANE,)), BROKEN, ["docs/mail.txt"]),
        (Rules(rules=(SKIPPED,)), BEFORE, ["docs/mail.txt"]),
        (Rules(), BROKEN, ["docs/mail.txt", "docs/pay.txt"]),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
async def test_what_cannot_be_read_again_is_not_found_as_it_was_where_rules_say_something_else(
    tmp_path, rules, data, left, alone
):
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("mail.txt", "pay.txt"):
        (docs / name).write_bytes(BEFORE)
    async with open_knowledge(keys=FileKeyStore(tmp_path / "keys")) as opened:
        knowledge = opened.knowledge
        await knowledge.add(OPERATOR, "ops", docs)
        object.__setattr__(knowledge.rooms, "rules", rules)
        (docs / "pay.txt").write_bytes(data)
        _, step = await knowledge.add(OPERATOR, "ops", docs / "pay.txt" if alone else docs, "docs")
        assert [one.source for one in step.skips] == ["docs/pay.txt"]
        assert step.removed == ["docs/pay.txt"] * (2 - len(left))
        assert [one.source for one in await knowledge.documents()] == left
        assert (await knowledge.verify(OPERATOR, "ops")).clean
        again = (await knowledge.add(OPERATOR, "ops", docs, "docs"))[1]
        assert (again.removed, again.unchanged) == ([], 1)

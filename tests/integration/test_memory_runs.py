"""`remember` and `recall` in runs: on record, resumed without being done again, and under the labels of what they handle."""

import json

import pytest

from symbi.agent.journal import RunState
from symbi.context.kinds import ContextItem, ContextQuery, MemoryKind
from symbi.context.port import START
from symbi.errors import InputError, PolicyDenied
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Integrity, Label

pytestmark = pytest.mark.anyio

POLICIES = """
@id("live") permit (principal, action in [Action::"CreateAgent", Action::"AllocateResources"], resource);
@id("own") permit (principal == Agent::"anna", action in [Action::"ReadData", Action::"WriteData"], resource == Memory::"anna");
@id("ben") permit (principal, action == Action::"ReadData", resource == Memory::"anna") when { [Agent::"ben", Agent::"loud"].contains(principal) };
@id("log") permit (principal, action == Action::"WriteLog", resource) when { context.label.integrity != "untrusted" };
"""
FILE = """
memory notes { retention "30d" }

agent anna(fact: String) {
    with {
        let id = remember({ what: fact, n: 1 }, tags = ["News"], importance = 0.8);
        remember("for others: " + fact, kind = "shared");
        let found = recall("anything new?", tags = ["news"]);
        { id: id, found: found, all: len(recall()) }
    }
}

agent ben() {
    with {
        recall(of = "anna")
    }
}

agent careless() {
    with {
        try { remember("x"); return "kept"; } catch (Denied e) { return "denied"; }
    }
}

agent loud() { with { log(recall(of = "anna")[0].content); } }
"""


def spec_of(running, name):
    return next(spec for spec in running.compiled.agents if spec.id == name)


async def run(running, name, inputs=None, labels=None):
    from symbi.agent.task import NO_TASK, Task  # noqa: PLC0415 - of this helper alone

    task = Task(labels=labels) if labels else NO_TASK
    return await running.runtime.run(running.compiled, spec_of(running, name), inputs or {}, task)


async def test_a_run_remembers_and_recalls_what_it_and_earlier_ones_kept(tmp_path):
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        outcome = await run(running, "anna", {"fact": "the gate is shut"})
        value = outcome.output
        assert outcome.state is RunState.FINISHED
        (found,) = value["found"]
        assert (found["id"], found["content"]) == (value["id"], {"what": "the gate is shut", "n": 1})
        assert (found["tags"], found["importance"], found["kind"]) == (["news"], 0.8, "long-term")
        assert found["run"] == outcome.run_id
        assert value["all"] == 2
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        assert (await run(running, "anna", {"fact": "it rains"})).output["all"] == 4
        shared = (await run(running, "ben")).output
        assert [item["content"] for item in shared] == ["for others: it rains", "for others: the gate is shut"]
        assert (await run(running, "careless")).output == "denied"
        # The block of the file set how long it is kept.
        row = running.runtime.rooms.world.log
        due = await row.read(lambda: running.runtime.context.memory.rooms.store.due_items(2**62, 0, START, 10))
        assert len(due) == 4


async def test_what_came_from_strangers_is_untrusted_when_it_comes_back(tmp_path):
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        untrusted = Label(Integrity.UNTRUSTED)
        await run(running, "anna", {"fact": "click here"}, {"fact": untrusted})
        (item,) = await running.runtime.context.retrieve_context(
            AgentId("anna"), ContextQuery(kinds=(MemoryKind.SHARED,))
        )
        assert item.label.integrity is Integrity.UNTRUSTED
        outcome = await run(running, "loud")
        assert "WriteLog" in outcome.error.message


async def test_a_resumed_run_keeps_nothing_twice(tmp_path):
    file = """
    agent anna() {
        with {
            let id = remember("once", kind = "short-term");
            let found = recall();
            log("now");
            [id, len(found)]
        }
    }
    """

    class Crash(Exception):
        pass

    seen = []

    def probe(point):
        seen.append(point)
        if point == "dispatched" and seen.count("dispatched") == 5:  # the log, after create, resources, and the two
            raise Crash

    with pytest.raises(BaseException):  # noqa: B017 - a crash, however it comes out
        async with open_in(tmp_path, file, policies=POLICIES, probe=probe) as running:
            await run(running, "anna")
    async with open_in(tmp_path, file, policies=POLICIES) as running:
        runs = await running.runtime.rooms.world.log.read(lambda: running.runtime.rooms.runs.runs(10))
        outcome = await running.runtime.resume(running.compiled, spec_of(running, "anna"), runs[0])
        assert outcome.output[1] == 1
        kept = await running.runtime.context.retrieve_context(AgentId("anna"), ContextQuery())
        assert [one.content for one in kept] == ["once"]


async def test_nothing_that_is_remembered_or_asked_stands_in_the_trail(tmp_path):
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        context = running.runtime.context
        await context.store_context(AgentId("anna"), ContextItem("gooseberry", tags=("damson",)))
        await context.retrieve_context(AgentId("anna"), ContextQuery(about="mirabelle", text="greengage"))
        events = [json.loads(one.record) for one in running.runtime.rooms.world.log._store.read(1)]
        text = json.dumps(events)
        assert "WriteData" in text
        for word in ("gooseberry", "damson", "mirabelle", "greengage"):
            assert word not in text


async def test_an_erased_person_is_gone_from_memory_and_its_copies_and_a_hold_keeps_it(tmp_path):
    from symbi.compliance.rooms import Order  # noqa: PLC0415 - of this test alone

    jane = Label(subjects=("jane@example.com",))
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        context, privacy = running.runtime.context, running.runtime.rooms.privacy
        one = await context.store_context(AgentId("anna"), ContextItem("her number is 5550123", label=jane))
        await context.store_context(AgentId("anna"), ContextItem("the weather is fine"))
        await context.checkpoint(AgentId("anna"))
        exported = await privacy.export(Order("jane@example.com"))
        assert any("5550123" in json.dumps(record) for record in exported["records"])
        await privacy.hold(Order("jane@example.com", reason="case 7"))
        with pytest.raises(Exception, match="legal hold"):
            await context.forget(AgentId("anna"), [one])
        await privacy.release(Order("jane@example.com"))
        assert len(await context.retrieve_context(AgentId("anna"), ContextQuery())) == 2
        certificate = await privacy.erase(Order("jane@example.com"))
        assert certificate["stores"]["memories"] == {"what": "deleted", "places": {"memories.body": 1}}
        assert certificate["search"]["clean"]
        left = await context.retrieve_context(AgentId("anna"), ContextQuery())
        assert [item.content for item in left] == ["the weather is fine"]
        assert (await context.checkpoints(AgentId("anna")))[0].items == 1


async def test_of_what_was_removed_before_nothing_stays_in_the_files_of_vectors_once_somebody_is_erased(tmp_path):
    from symbi.compliance.rooms import Order  # noqa: PLC0415 - of this test alone

    jane = Label(subjects=("jane@example.com",))
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        context = running.runtime.context
        one = await context.store_context(AgentId("anna"), ContextItem("her number is 5550123", label=jane))
        await context.store_context(AgentId("anna"), ContextItem("the weather is fine"))
        await context.retrieve_context(AgentId("anna"), ContextQuery(about="weather"))
        await context.forget(AgentId("anna"), [one])
    (clean,) = tmp_path.rglob("memory/clean")
    clean.unlink()  # as where what had expired was not out of the files yet when the process ended
    (before,) = clean.parent.glob("g-*")
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        certificate = await running.runtime.rooms.privacy.erase(Order("jane@example.com"))
        assert certificate["search"]["clean"]
        assert clean.exists()
        assert not before.exists()
        found = await running.runtime.context.retrieve_context(AgentId("anna"), ContextQuery(about="weather"))
        assert [item.content for item in found] == ["the weather is fine"]


LOOKS = """
agent reader(question: String) {
    capabilities = ["search", "answer", "log"]
    with {
        let pages = search(question, "runbooks", limit = 2);
        { pages: pages, said: answer(question, "runbooks") }
    }
}
"""
LOOKING = """
@id("live") permit (principal, action in [Action::"CreateAgent", Action::"AllocateResources"], resource);
@id("books") permit (principal, action in [Action::"ReadData", Action::"WriteData"], resource == Knowledge::"runbooks");
"""


async def test_an_agent_looks_into_documents_and_cites_them(tmp_path):
    books = tmp_path / "runbooks"
    books.mkdir()
    (books / "memory.md").write_text("# Out of memory\n\nRestart the checkout service and raise its limit.\n")
    (books / "disk.md").write_text("# Disk is full\n\nRotate the logs of the archive.\n")
    async with open_in(tmp_path, LOOKS, policies=LOOKING) as running:
        knowledge = await running.runtime.rooms.knowledge.opened()
        await knowledge.add(running.runtime.context.memory.principal_of(AgentId("librarian")), "runbooks", books)
        outcome = await run(running, "reader", {"question": "what to do when the checkout service is out of memory?"})
        best = outcome.output["pages"][0]
        assert best["source"].endswith("memory.md")
        assert "Restart the checkout service" in best["text"]
        assert outcome.label.integrity is Integrity.UNTRUSTED
        said = outcome.output["said"]
        assert said["found"]
        assert said["passages"][0]["source"].endswith("memory.md")
        found = await running.runtime.context.search_knowledge(AgentId("reader"), "full disk", collections=["runbooks"])
        assert found.passages[0].citation.source.endswith("disk.md")


PURPOSEFUL = (
    LOOKING
    + """
@id("for-its-purpose") forbid (principal, action == Action::"ReadData", resource is Knowledge)
when { context.purpose != resource.purpose };
"""
)


@pytest.mark.parametrize("purpose", ["support", "sales", None])
async def test_what_an_agent_looks_things_up_for_is_what_its_operator_says(tmp_path, purpose):
    books = tmp_path / "runbooks"
    books.mkdir()
    (books / "memory.md").write_text("# Out of memory\n\nRestart the checkout service and raise its limit.\n")
    config = '[knowledge.collections.runbooks]\npurpose = "support"\n'
    config += "" if purpose is None else f'[agents.reader]\npurpose = "{purpose}"\n'
    async with open_in(tmp_path, LOOKS, policies=PURPOSEFUL, config=config) as running:
        knowledge, context = await running.runtime.rooms.knowledge.opened(), running.runtime.context
        await knowledge.add(context.memory.principal_of(AgentId("librarian")), "runbooks", books)
        question = "what to do when the checkout service is out of memory?"
        if purpose == "support":
            outcome = await run(running, "reader", {"question": question})
            assert outcome.output["said"]["found"]
            assert (await context.search_knowledge(AgentId("reader"), question)).passages
            return
        outcome = await run(running, "reader", {"question": question})
        assert outcome.output is None
        assert "for-its-purpose" in str(outcome.error)
        with pytest.raises(PolicyDenied):
            await context.search_knowledge(AgentId("reader"), question)


async def test_the_door_for_programs_says_which_argument_is_of_another_type(tmp_path):
    async with open_in(tmp_path, FILE, policies=POLICIES) as running:
        context, anna = running.runtime.context, AgentId("anna")
        before = running.runtime.rooms.world.log.sequence
        for call, said in [
            (context.store_context(7, ContextItem("x")), "`agent` is the name of an agent or a `Principal`, and not `int`"),
            (context.store_context(anna, "x"), "`item` is a `ContextItem`, and not `str`"),
            (context.retrieve_context(anna, "x"), "`query` is a `ContextQuery`, and not `str`"),
            (context.search_knowledge(anna, 7), "`question` is a str, and not `int`"),
            (context.search_knowledge(anna, "x", collections="ab"), "`collections` is a list or tuple of str, and not `str`"),
            (context.search_knowledge(anna, "x", limit="3"), "`limit` is a whole number, and not `str`"),
            (context.search_knowledge(None, "x"), "`agent` is the name of an agent or a `Principal`, and not `NoneType`"),
            (context.forget(anna, "abc"), "`ids` is a list or tuple of str, and not `str`"),
            (context.restore(anna, 7), "`checkpoint` is the id of a checkpoint, a str, and not `int`"),
        ]:  # fmt: skip
            with pytest.raises(InputError) as refused:
                await call
            assert (refused.value.message, refused.value.code) == (said, "context.type")
        assert running.runtime.rooms.world.log.sequence == before

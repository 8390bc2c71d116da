"""Folders of one collection, whatever they are called, do not take each other's documents out."""

import anyio.to_thread
import pytest

from symbi.errors import InputError
from symbi.testing.knowledge import open_knowledge
from symbi.types import AgentId, Principal

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))
MAIL = b"# Mail\n\nMail that bounces stands in the queue.\n"


async def add(opened, path, name="", after=None, *, moved=False):
    return (await opened.knowledge.add(OPERATOR, "ops", path, name, after, moved=moved))[1]


async def sources(opened):
    return [one.source for one in await opened.knowledge.documents()]


def folder(path):
    path.mkdir(parents=True)
    (path / f"{path.name}.md").write_text(f"# Of {path.name}\n\nIts queue.\n")
    return path


@pytest.mark.parametrize(
    ("names", "moved"),
    [
        (("docs", "docs/sub"), False),
        (("docs", "docs/sub"), True),
        (("docs", "docs/a/b/c"), True),
        (("docs/sub", "docs"), False),
        (("docs", "docs"), False),
    ],
)
async def test_one_that_is_called_as_if_it_lay_in_the_other_is_refused(tmp_path, names, moved):
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other")
    async with open_knowledge() as opened:
        await add(opened, one, names[0])
        with pytest.raises(InputError) as refused:
            await add(opened, other, names[1], moved=moved)
        assert refused.value.code == "knowledge.another_folder"
        assert str(one) in refused.value.message
        assert ("--moved" in str(refused.value.hint)) is not names[1].startswith("docs/")
        assert await sources(opened) == [f"{names[0]}/one.md"]
        await add(opened, other, "docs-2")
        await opened.knowledge.remove(OPERATOR, "ops", [f"{names[0]}/one.md"])
        assert (await add(opened, other, names[1])).added == [f"{names[1]}/other.md"]  # nothing is left to be taken out


async def test_a_folder_of_a_folder_may_be_read_by_itself_and_moves_with_it(tmp_path):
    docs, elsewhere = folder(tmp_path / "docs"), tmp_path / "elsewhere"
    sub = folder(docs / "sub")
    async with open_knowledge() as opened:
        await add(opened, sub, "docs/sub")
        assert (await add(opened, docs)).added == ["docs/docs.md"]
        assert (await add(opened, sub, "docs/sub")).unchanged == 1
        docs.rename(elsewhere)
        with pytest.raises(InputError, match="not from"):
            await add(opened, elsewhere, "docs")
        assert (await add(opened, elsewhere, "docs", moved=True)).unchanged == 2
        assert (await add(opened, elsewhere / "sub", "docs/sub")).unchanged == 1
        assert await sources(opened) == ["docs/docs.md", "docs/sub/sub.md"]


async def test_another_folder_is_refused_wherever_reading_it_goes_on(tmp_path):
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other")
    async with open_knowledge() as opened:
        await add(opened, one, "docs")
        with pytest.raises(InputError, match="not from"):
            await add(opened, other, "docs", "a")
        assert await sources(opened) == ["docs/one.md"]


async def test_what_came_into_a_folder_while_it_was_read_is_not_taken_out_at_the_end(tmp_path):
    docs = folder(tmp_path / "docs")
    (docs / "old.md").write_text("# Old\n\nIts queue.\n")
    async with open_knowledge() as opened:
        await add(opened, docs)
        listing = await opened.knowledge.plan("ops", docs)
        (docs / "new.md").write_text("# New\n\nIts queue.\n")
        (docs / "old.md").unlink()
        assert (await add(opened, docs)).added == ["docs/new.md"]
        (docs / "docs.md").unlink()
        step = await opened.knowledge.step(OPERATOR, "ops", listing, "docs/docs.md")
        assert (step.next, step.removed) == (None, [])
        assert await sources(opened) == ["docs/docs.md", "docs/new.md"]
        assert (await add(opened, docs)).removed == ["docs/docs.md"]


async def test_a_small_document_is_cut_without_a_thread_and_others_on_one(monkeypatch):
    on, run = [], anyio.to_thread.run_sync
    monkeypatch.setattr(
        "anyio.to_thread.run_sync", lambda work, *rest, **more: on.append(work) or run(work, *rest, **more)
    )
    async with open_knowledge() as opened:
        for text, threads in ((MAIL, 0), (MAIL * 200, 1), (b"# A\n\nb\n\n" * 20, 1)):
            on.clear()
            await opened.knowledge.put(OPERATOR, "ops", "a.md", text)
            assert [getattr(one, "__name__", "") for one in on].count("cut") == threads

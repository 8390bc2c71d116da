"""The documentation: links lead somewhere, snippets are files, generated parts are current, decisions are complete."""

import re
import runpy
import string

import pytest

LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"")
FENCE = re.compile(r"^(?P<mark>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=mark)\s*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
DECISION_PARTS = ("Context and problem statement", "Considered options", "Decision outcome", "Consequences")


@pytest.fixture(scope="session")
def pages(repository, root):
    """(path, text) of the Markdown files that people read."""
    return [(path, path.read_text("utf-8")) for path in repository if path.suffix == ".md"]


def prose(text):
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(text):
    """The names that headings get as targets of links."""
    found = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", "")).lower()
        kept = "".join(c for c in words if c not in string.punctuation or c in "-_")
        found.add(kept.replace(" ", "-"))
    return found


def test_every_relative_link_leads_somewhere(pages, root):
    broken = []
    for path, text in pages:
        for target in (found[1] or found[2] for found in LINK.finditer(prose(text))):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            goal = (path.parent / name).resolve() if name else path
            found = goal.exists() and goal.is_relative_to(root)
            if found and anchor and goal.suffix == ".md":
                found = anchor in anchors(goal.read_text("utf-8"))
            if not found:
                broken.append(f"{path.relative_to(root)}: {target}")
    assert broken == []


def test_every_snippet_that_names_a_file_is_that_file(pages, root):
    """```` ```toml file=PATH ```` shows the whole file, `excerpt=PATH` lines that stand in it one after the other."""
    wrong = []
    for path, text in pages:
        for fence in FENCE.finditer(text):
            for kind, name in re.findall(r"\b(file|excerpt)=(\S+)", fence["info"]):
                content = (root / name).read_text("utf-8") if (root / name).is_file() else ""
                same = fence["body"] == content if kind == "file" else f"\n{fence['body']}" in f"\n{content}"
                if not content or not same:
                    wrong.append(f"{path.relative_to(root)}: {name}")
    assert wrong == []


def test_what_is_printed_from_the_code_is_current(root):
    tool = runpy.run_path(str(root / "tools/docs.py"))
    assert [str(page.relative_to(root)) for page in tool["stale"]()] == [], "run `make docs`"


def test_decisions_are_numbered_in_a_row_listed_and_complete(root):
    folder = root / "docs/adr"
    decisions = sorted(folder.glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    index = (folder / "README.md").read_text("utf-8")
    for path in decisions:
        text = path.read_text("utf-8")
        assert f"]({path.name})" in index, path.name
        assert re.search(rf"^# {path.name[:4]}\. ", text, re.MULTILINE), path.name
        assert re.search(r"^status: (proposed|accepted|superseded by \d{4})$", text, re.MULTILINE), path.name
        headings = HEADING.findall(text)
        assert [part for part in DECISION_PARTS if part not in headings] == [], path.name


def test_every_page_can_be_reached_from_the_readme(pages, root):
    texts = {path.resolve(): text for path, text in pages if path.is_relative_to(root / "docs") or path.parent == root}
    reached = set()
    waiting = [(root / "README.md").resolve()]
    while waiting:
        page = waiting.pop()
        if page in reached or page not in texts:
            continue
        reached.add(page)
        for found in LINK.finditer(prose(texts[page])):
            target = (found[1] or found[2]).partition("#")[0]
            waiting.append((page.parent / target).resolve())
    assert sorted(str(page.relative_to(root)) for page in set(texts) - reached) == []


def test_a_broken_link_and_a_stale_snippet_are_found(tmp_path):
    (tmp_path / "a.toml").write_text("x = 1\ny = 2\n")
    page = tmp_path / "a.md"
    text = "# A b\n[b](b.md) [c](#a-b) [d](#c)\n```toml file=a.toml\nx = 1\n```\n```toml excerpt=a.toml\ny = 2\n```\n"
    page.write_text(text)
    with pytest.raises(AssertionError, match=r"b\.md.*#c"):
        test_every_relative_link_leads_somewhere([(page, text)], tmp_path)
    with pytest.raises(AssertionError, match=r"\['a\.md: a\.toml'\] == \[\]"):
        test_every_snippet_that_names_a_file_is_that_file([(page, text)], tmp_path)

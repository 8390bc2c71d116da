"""Mutation testing of what judges: changes `policy/` and `guard/` on purpose, and counts the changes that no test notices.

`tools/mutation.sh` installs mutmut in an environment of its own and runs it as `[tool.mutmut]` in pyproject.toml says;
this script reads what it left in `mutants/` and sorts the survivors:

- *words*: the change is inside a message, a hint or an error's code, which tests compare in part only;
- *logic*: anything else. Each of these is either a test that is missing or a change that changes nothing.

    python tools/mutation.py                 the score and the survivors in logic, file by file
    python tools/mutation.py --write         likewise, into docs/security/assurance.md
    python tools/mutation.py --sample 1500   of a random sample alone, the same one each time
    python tools/mutation.py --sample 1500 --names    the names of that sample, for tools/mutation.sh
"""

import argparse
import ast
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MUTANTS = Path("mutants/src")
PAGE = Path("docs/security/assurance.md")
BEGIN, END = "<!-- measured: mutation -->", "<!-- end of measured text -->"
SEED = 2026  # of the sample
SURVIVED, NO_TESTS = 0, 33  # exit codes of the tests of one change
SHOWN_CHARS = 110


@dataclass(frozen=True)
class Survivor:
    """A change that no test noticed: where, whether it is one of words, and what became of the code."""

    file: str
    function: str
    words: bool
    before: str
    after: str


def functions(tree: ast.AST) -> dict[str, ast.AST]:
    """All functions of a file by name; the tool names each of its variants differently."""
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def difference(old: ast.AST, new: ast.AST, words: bool = False) -> tuple[ast.AST, ast.AST, bool] | None:  # noqa: FBT001, FBT002 - carried down the tree
    """The innermost parts that differ, and whether they stand inside a message."""
    if ast.dump(old) == ast.dump(new):
        return None
    words = words or is_message(old)
    if type(old) is type(new):
        parts = list(zip(ast.iter_child_nodes(old), ast.iter_child_nodes(new), strict=False))
        differing = [pair for pair in parts if ast.dump(pair[0]) != ast.dump(pair[1])]
        if len(differing) == 1 and count(old) == count(new) and ast.unparse(differing[0][0]):
            return difference(*differing[0], words)
    return old, new, words


def count(node: ast.AST) -> int:
    """How many parts a node has."""
    return len(list(ast.iter_child_nodes(node)))


def is_message(node: ast.AST) -> bool:
    """Whether a node makes an error, a log line or a warning, of which the rest is words."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name.endswith(("Error", "Warning", "Denied", "Syntax", "Required", "Unavailable")) or name in {
            "Deny", "InputError", "_misfit", "warning", "_wrong", "fail", "_bounded",
        }  # fmt: skip
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id in {"msg", "hint", "reason"} for target in node.targets)
    return False


def results_of(meta: Path) -> dict[str, int | None]:
    """What came of each change of one file; None where it was not tried."""
    results: dict[str, int | None] = json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
    return results


def sample_of(size: int) -> list[str]:
    """The names of some changes, drawn by chance from all of them; a smaller sample is the beginning of a larger one."""
    names = sorted(name for meta in MUTANTS.glob("symbi/**/*.meta") for name in results_of(meta))
    random.Random(SEED).shuffle(names)  # noqa: S311 - no secret
    return names[:size]


def survivors(meta: Path, chosen: frozenset[str] | None) -> Iterator[Survivor]:
    """The survivors of one file."""
    results = {name: code for name, code in results_of(meta).items() if chosen is None or name in chosen}
    source = meta.with_suffix("")
    known = functions(ast.parse(source.read_text("utf-8")))
    file = str(source.relative_to(MUTANTS.parent))
    for key, code in results.items():
        if code != SURVIVED:
            continue
        name = key.rpartition(".")[2]
        old, new = known[f"{name.partition('__mutmut_')[0]}__mutmut_orig"], known[name]
        new.name = old.name  # type: ignore[attr-defined]
        shown = name.partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        found = difference(old, new)
        if found is None:
            yield Survivor(file, shown, words=True, before="a default or annotation", after="another")
        else:
            before, after, words = found
            yield Survivor(file, shown, words, short(before), short(after))


def short(node: ast.AST) -> str:
    """Code on one line, cut."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def report(chosen: frozenset[str] | None) -> str:
    """The table of scores, and the survivors in logic; of all changes that were tried, or of those chosen."""
    columns = ("changes", "found", "not reached", "survive in words", "survive in logic")
    lines = [f"| file | {' | '.join(columns)} |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    total: Counter[str] = Counter()
    listed: list[str] = []
    for meta in sorted(MUTANTS.glob("symbi/**/*.meta")):
        every = results_of(meta)
        tried = {n: code for n, code in every.items() if code is not None and (chosen is None or n in chosen)}
        total["all"] += len(every)
        if not tried:
            continue
        left = list(survivors(meta, chosen))
        logic = [one for one in left if not one.words]
        missed = sum(code == NO_TESTS for code in tried.values())
        found = len(tried) - missed - len(left)
        row = dict(zip(columns, (len(tried), found, missed, len(left) - len(logic), len(logic)), strict=True))
        total.update(row)
        file = str(meta.relative_to(MUTANTS / "symbi")).removesuffix(".meta")
        lines.append(f"| `{file}` | {' | '.join(map(str, row.values()))} |")
        listed += [f"- `{file}`, `{s.function}`: `{s.before}` → `{s.after}`" for s in logic]
    if not total["changes"]:
        sys.exit("mutation: nothing in `mutants/`; run tools/mutation.sh first")
    lines.append(f"| all | {' | '.join(str(total[column]) for column in columns)} |")
    reached = total["changes"] - total["not reached"]
    which = (
        f"a sample of {total['changes']} of {total['all']}" if total["changes"] < total["all"] else str(total["all"])
    )
    head = (
        f"Of {which} changes the tests that took part reach {reached}. Of those they find {total['found'] / reached:.1%};"
        f" of those that are not in words, {total['found'] / (reached - total['survive in words']):.1%}."
    )
    return "\n".join([head, "", *lines, "", "Survivors in logic:", "", *listed])


def main() -> None:
    """Print the report, or write it into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/security/assurance.md")
    parser.add_argument("--sample", type=int, help="so many changes, drawn by chance")
    parser.add_argument("--names", action="store_true", help="print the names of the sample, and nothing else")
    options = parser.parse_args()
    sample = None if options.sample is None else sample_of(options.sample)
    if options.names:
        print(*(sample or ()), sep="\n")
        return
    text = report(None if sample is None else frozenset(sample))
    if not options.write:
        print(text)
        return
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()

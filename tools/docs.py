"""The parts of the documentation that are printed from the code.

A page holds `<!-- generated: NAME -->` … `<!-- end of generated text -->`; what stands between is made by the function
of that name below. `docs/reference/configuration.md` is made as a whole.

    python tools/docs.py            name every page that is not current; status 1 if there is one
    python tools/docs.py --write    bring them up to date
"""

import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import typer

from symbi import errors
from symbi.config import config_reference
from symbi.guard.ledger import MOVES

ROOT: Final = Path(__file__).parents[1]
BLOCK: Final = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end of generated text -->)", re.DOTALL)


def floors() -> str:
    """The layers that import-linter checks, highest first, as far as they are built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = next(entry for entry in project["tool"]["importlinter"]["contracts"] if entry["id"] == "floors")
    lines = []
    for number, layer in enumerate(reversed(contract["layers"])):
        rooms = [name for name in re.findall(r"\w+", layer) if _first_line(f"symbi.{name}") is not None]
        lines += [f"{number:>2}  {name:<10}  {_first_line(f'symbi.{name}')}" for name in rooms]
    return "```text\n" + "\n".join(reversed(lines)) + "\n```\n"


def _first_line(module: str) -> str | None:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return (found.__doc__ or "").partition("\n")[0]


def error_codes() -> str:
    """Every error class with its code, under the class that it belongs to."""
    lines = ["| error | default code | worth trying again | meaning |", "| --- | --- | --- | --- |"]
    for depth, error in _tree(errors.SymbiError, 0):
        meaning = inspect.getdoc(error) or ""
        again = "yes" if error.retryable else ""
        indent = "&emsp;" * depth
        lines.append(
            f"| {indent}`{error.__name__}` | `{error.default_code}` | {again} | {meaning.partition(chr(10))[0]} |"
        )
    return "\n".join(lines) + "\n"


def _tree(error: type[errors.SymbiError], depth: int) -> Iterator[tuple[int, type[errors.SymbiError]]]:
    yield depth, error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child, depth + 1)


def effect_states() -> str:
    """The moves of an effect record."""
    moves = [f"    {state.value} --> {target.value}" for state, targets in MOVES.items() for target in sorted(targets)]
    ends = [f"    {state.value} --> [*]" for state, targets in MOVES.items() if not targets]
    starts = ["    [*] --> dispatched: allowed", "    [*] --> denied: refused"]
    return "\n".join(["```mermaid", "stateDiagram-v2", *starts, *moves, *ends, "```"]) + "\n"


def public_names() -> str:
    """What `import symbi` offers."""
    symbi = importlib.import_module("symbi")
    lines = ["| name | what it is |", "| --- | --- |"]
    for name in symbi.__all__:
        value = getattr(symbi, name)
        about = f"`{value}`" if isinstance(value, str) else (inspect.getdoc(value) or "").partition("\n")[0]
        lines.append(f"| `{name}` | {about} |")
    return "\n".join(lines) + "\n"


def exit_codes() -> str:
    """What each exit code of `symbi` means."""
    meanings: Mapping[int, str] = importlib.import_module("symbi.cli.output").EXIT_MEANINGS
    return (
        "\n".join(["| code | meaning |", "| --- | --- |", *(f"| {code} | {text} |" for code, text in meanings.items())])
        + "\n"
    )


def commands() -> str:
    """Every command of `symbi`, with the first line of its help."""
    root = typer.main.get_command(importlib.import_module("symbi.cli.main").app)
    lines = ["| command | what it does |", "| --- | --- |"]
    lines += [
        f"| `{name}` | {(command.help or '').strip().partition(chr(10))[0]} |"
        for name, command in _leaves("symbi", root)
    ]
    return "\n".join(lines) + "\n"


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children: Mapping[str, Any] = getattr(command, "commands", {})
    for child, each in children.items():
        yield from _leaves(f"{name} {child}", each)
    if not children and not command.hidden:
        yield name, command


BLOCKS: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        "floors": floors,
        "error-codes": error_codes,
        "effect-states": effect_states,
        "public-names": public_names,
        "exit-codes": exit_codes,
        "commands": commands,
    }
)


def current(text: str) -> str:
    """A page with its generated parts as they should be.

    Raises:
        KeyError: A part has a name that nothing generates.
    """
    return BLOCK.sub(lambda found: found[1] + BLOCKS[found["name"]]() + found[3], text)


def stale() -> dict[Path, str]:
    """The pages that are not current, with the text that they should have."""
    pages = {page: (text := page.read_text("utf-8"), current(text)) for page in sorted((ROOT / "docs").rglob("*.md"))}
    reference = ROOT / "docs" / "reference" / "configuration.md"
    pages[reference] = (reference.read_text("utf-8"), config_reference())
    return {page: wanted for page, (text, wanted) in pages.items() if text != wanted}


def main(arguments: list[str]) -> int:
    """Run as the module says; returns the exit status."""
    pages = stale()
    for page, wanted in pages.items():
        if arguments == ["--write"]:
            page.write_text(wanted, "utf-8")
        print(page.relative_to(ROOT), "written" if arguments == ["--write"] else "is not current: run `make docs`")
    return 1 if pages and arguments != ["--write"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

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
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Final, get_args

import typer

from symbi import errors
from symbi.agent.calls import Effects
from symbi.config import config_reference
from symbi.dsl import builtins, settings, vocabulary
from symbi.dsl.check import check
from symbi.dsl.format import format_text
from symbi.dsl.parser import parse
from symbi.guard.ledger import MOVES
from symbi.policy import library
from symbi.policy.catalog import BASE_SCHEMA
from symbi.policy.lint import LINTS
from symbi.policy.policies import PolicySet

ROOT: Final = Path(__file__).parents[1]
WIDTH: Final = 140  # of a line of the documentation
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


def lints() -> str:
    """What `symbi policy check` remarks on."""
    lines = ["| code | what is the matter |", "| --- | --- |"]
    lines += [f"| `{code}` | {meaning} |" for code, meaning in LINTS.items()]
    return "\n".join(lines) + "\n"


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
        if isinstance(value, str):
            about = f"`{value}`"
        elif isinstance(value, UnionType):
            about = "One of " + _inline(one.__name__ for one in get_args(value)) + "."
        else:
            about = (inspect.getdoc(value) or "").partition("\n")[0]
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


def effects() -> str:
    """What reaches the world, with the Cedar action that each passes the gate as."""
    rows = [
        (
            f"`{signature}`",
            f"`{vocabulary.VERB_BY_WORD[name].actions[0]}`",
            inspect.getdoc(getattr(Effects, name)) or "",
        )
        for name, signature in builtins.EFFECTS.items()
    ]
    return _table(("call", "action", "what it does"), rows)


def helpers() -> str:
    """The pure helpers, as they are called."""
    return _list(str(signature) for signature in builtins.PURE.values())


def types() -> str:
    """The built-in types."""
    generic = [f"{name}<{', '.join('TU'[:n])}>" for name, n in builtins.GENERIC_TYPES.items()]
    return _list([*builtins.BUILTIN_TYPES, *generic])


def catchable() -> str:
    """The kinds that a `catch` may name, with the errors that each stands for."""
    rows = [(f"`{kind}`", _inline(one.__name__ for one in stands)) for kind, stands in builtins.CATCHABLE.items()]
    return _table(("kind", "catches"), rows)


def never_caught() -> str:
    """What ends a run whatever its body says."""
    return _list(error.__name__ for error in builtins.NEVER_CAUGHT)


def later() -> str:
    """What parses and is refused, because nothing carries it out yet."""
    rows = [
        ("effects", _inline(builtins.LATER_EFFECTS)),
        ("declarations", _inline(builtins.LATER_DECLARATIONS)),
        ("attributes of `with`", _inline(settings.LATER_ATTRIBUTES)),
        ("sandboxes", _inline(settings.LATER_SANDBOXES)),
    ]
    return _table(("kind", "words"), rows)


def sandboxes() -> str:
    """The values of `sandbox`."""
    rows = [(f"`{word}`", f"`{tier.value}`") for word, tier in settings.SANDBOXES.items()]
    return _table(("written", "tier"), rows)


def verbs() -> str:
    """What a rule can be about."""
    rows = []
    for verb in vocabulary.VERBS:
        forms = f"`{verb.form}`" + (f"; also {_inline(verb.aliases)}" if verb.aliases else "")
        rows.append((f"`{verb.name}`", forms, _inline(verb.actions), verb.meaning))
    return _table(("verb", "written", "actions", "meaning"), rows)


def attributes() -> str:
    """What a guard can read, by action: what all of them have, what all with a label have, and the rest."""
    tables = vocabulary.ATTRIBUTES
    everywhere = set.intersection(*(set(table) for table in tables.values()))
    labelled = {action for action, table in tables.items() if "label.integrity" in table}
    data = {f"data.{name}": attribute for name, attribute in vocabulary.DATA_ATTRIBUTES.items()}
    common = {
        name: found
        for name, found in tables["InvokeTool"].items()
        if name.startswith(("principal.", "request.", "usage.", "time.", "label."))
    }
    rows = [
        ("every action", _attributes(common, lambda name: name in everywhere)),
        (_inline(sorted(labelled)), _attributes({**common, **data}, lambda name: name not in everywhere)),
    ]
    rows += [(f"`{action}`", _attributes(table, lambda name: name not in common)) for action, table in tables.items()]
    return _table(("action", "names"), [row for row in rows if row[1]])


def _attributes(table: Mapping[str, vocabulary.Attribute], wanted: Callable[[str], bool]) -> str:
    return ", ".join(_attribute(name, found) for name, found in table.items() if wanted(name))


def _attribute(name: str, attribute: vocabulary.Attribute) -> str:
    known = f" ({', '.join(attribute.values)})" if attribute.values else f" ({attribute.kind})"
    return f"`{name}`{known}"


def policy_library() -> str:
    """The policies of the library by type, with what each says."""
    rows = [
        (f"`{policy.id}`", policy.annotations["doc"])
        for source in (*library.LIBRARY.values(), library.BUDGETS["budgets.cedar"])
        for policy in PolicySet.load([source, library.BUDGETS["history.toml"]]).policies
        if not policy.id.startswith(library.RESERVED_PREFIX)
    ]
    return _table(("policy", "what it says"), rows)


def policy_actions() -> str:
    """Each action with its principal, resource and context, out of the schema."""
    bare = re.sub(r"//[^\n]*", "", BASE_SCHEMA)
    shared = dict(re.findall(r"^type (\w+) = \{(.*?)\};", bare, re.MULTILINE | re.DOTALL))
    rows = []
    for names, body in re.findall(r"^action ([\w, ]+?) appliesTo \{(.*?)\};", bare, re.MULTILINE | re.DOTALL):
        principal, resource = re.findall(r"\[([\w, ]+)\]", body)[:2]
        context = body.partition("context:")[2].strip().rstrip(",").strip("{} \n")
        context = shared.get(context, context)
        facts = _inline(" ".join(fact.split()) for fact in re.split(r",\s*(?=\w+:)", context.strip().rstrip(",")))
        rows.append((_inline(re.split(r",\s*", names.strip())), f"`{principal}`", _inline(resource.split(", ")), facts))
    return _table(("action", "principal", "resource", "context"), rows)


def guide() -> str:
    """The agent file of the language guide, which must be without a finding and in canonical form.

    Raises:
        ValueError: It is not.
    """
    path = ROOT / "docs" / "reference" / "guide.symbi"
    text = path.read_text("utf-8")
    findings = [str(finding) for finding in check(parse(text, path.name))]
    if findings or format_text(text, path.name) != text:
        msg = f"{path.name}: {'; '.join(findings) or 'not in canonical form'}"
        raise ValueError(msg)
    return f"```text\n{text}```\n"


def table_of(module: str, number: int = 0) -> str:
    """A table in the docstring of a module; the first is 0."""
    text = inspect.getdoc(importlib.import_module(module)) or ""
    tables: list[str] = re.findall(r"(?:^\|.*(?:\n|\Z))+", text, re.MULTILINE)
    return tables[number].rstrip("\n") + "\n"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in [header, *rows]]
    return "\n".join([lines[0], re.sub(r"[^|]+", " --- ", lines[0]), *lines[1:]]) + "\n"


def _inline(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _list(words: Iterable[str]) -> str:
    whole = _inline(word.replace(" ", "\N{NO-BREAK SPACE}") for word in words)
    filled = textwrap.fill(whole, WIDTH, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\N{NO-BREAK SPACE}", " ") + "\n"


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
        "lints": lints,
        "public-names": public_names,
        "exit-codes": exit_codes,
        "commands": commands,
        "effects": effects,
        "helpers": helpers,
        "types": types,
        "catchable": catchable,
        "never-caught": never_caught,
        "later": later,
        "sandboxes": sandboxes,
        "verbs": verbs,
        "attributes": attributes,
        "guide": guide,
        "policy-library": policy_library,
        "policy-actions": policy_actions,
        "audit-settings": partial(table_of, "symbi.dsl.conditions", 1),
        "condition-actions": partial(table_of, "symbi.guard.conditions"),
        "enforcement-points": partial(table_of, "symbi.guard.action"),
        "requirements": partial(table_of, "symbi.dsl.conditions"),
        "conditions": partial(table_of, "symbi.policy.obligations"),
        "approvals": partial(table_of, "symbi.policy.approval"),
        "argument-types": partial(table_of, "symbi.policy.shape"),
        "verification-modes": partial(table_of, "symbi.tools.verifier"),
        "risk": partial(table_of, "symbi.sandbox.tier"),
        "remedies": partial(table_of, "symbi.agent.remedies"),
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

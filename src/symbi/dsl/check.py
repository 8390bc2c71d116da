"""Judges a parsed file: what is wrong with it, and what is probably not meant. Pure.

Nothing that parses is passed over: what has no room to carry it out yet is an error at its place.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from symbi.dsl import ast
from symbi.dsl.body import MAIN, BodyChecker, Surroundings, note_not, note_repeated
from symbi.dsl.builtins import BUILTIN_TYPES, EFFECTS, GENERIC_TYPES, LATER_DECLARATIONS, LATER_EFFECTS, PURE
from symbi.dsl.findings import Findings
from symbi.dsl.memories import read_memory
from symbi.dsl.names import TOOL_PATTERN, Tools, unknown_tool
from symbi.dsl.rules import capabilities_of, check_cedar, compile_rules
from symbi.dsl.schedules import read_schedules
from symbi.dsl.settings import read_settings
from symbi.dsl.spec import Diagnostic
from symbi.dsl.walk import children
from symbi.errors import did_you_mean
from symbi.types import SecurityTier

_PLAIN_VALUES: Final = (ast.String, ast.Duration, ast.Number, ast.Boolean, ast.Name)
CAPABLE_EFFECTS: Final = tuple(name for name in EFFECTS if name != "tool")
"""Effects that capabilities can list; of tools they list the names."""


def check(file: ast.File, *, tools: Tools = None) -> tuple[Diagnostic, ...]:
    """Everything that is wrong with a file, and every warning, in the order of the source.

    Args:
        file: A parsed file.
        tools: Names of the tools there are; a mapping says also which arguments each takes (None: any). Without it,
            names of tools are taken as they are.
    """
    findings = Findings(file.name)
    _later(file, findings)
    _metadata(file, findings)
    _types(file, findings)
    functions = _functions(file.declarations, findings)
    _agents(file, functions, tools, findings)
    _rules(file, tools, findings)
    read_schedules(file, partial(has_body, file), findings)
    read_memory(file, findings)
    return findings.sorted()


def with_block(agent: ast.Agent) -> ast.With | None:
    """The `with` block of an agent; its first, where it has several."""
    return next((item for item in agent.items if isinstance(item, ast.With)), None)


def body_of(agent: ast.Agent, functions: Mapping[str, ast.Function]) -> ast.Block | None:
    """What an agent runs: its `with` block or, where that does nothing, the function `main`; None where there is neither.

    Args:
        agent: The agent.
        functions: The functions it sees, by name.
    """
    block = with_block(agent)
    if block is not None and (block.body.statements or block.body.value is not None):
        return block.body
    main = functions.get(MAIN)
    return None if main is None else main.body


def has_body(file: ast.File, agent: ast.Agent) -> bool:
    """Whether an agent of a file has something to run."""
    return body_of(agent, functions_of(agent, file)) is not None


def functions_of(agent: ast.Agent, file: ast.File) -> Mapping[str, ast.Function]:
    """The functions that an agent sees, by name: the file's, and its own in their stead."""
    found = {item.name: item for item in file.declarations if isinstance(item, ast.Function)}
    found.update((item.name, item) for item in agent.items if isinstance(item, ast.Function))
    return found


# --- declarations of the file -----------------------------------------------------------------


def _later(file: ast.File, findings: Findings) -> None:
    kinds = (ast.Channel, ast.Webhook)
    words = dict(zip(kinds, LATER_DECLARATIONS, strict=True))
    for node in file.declarations:
        word = words.get(type(node))
        if word is not None:
            findings.later(word, node.span, "remove it: nothing would carry it out")


def _metadata(file: ast.File, findings: Findings) -> None:
    blocks = [node for node in file.declarations if isinstance(node, ast.Metadata)]
    entries = [entry for block in blocks for entry in block.entries]
    note_repeated(((entry.key, entry.span) for entry in entries), "metadata key", findings)
    for entry in entries:
        _metadata_value(entry.value, findings)


def _metadata_value(value: ast.Expr, findings: Findings) -> None:
    match value:
        case ast.Array(items=items):
            for item in items:
                _metadata_value(item, findings)
        case ast.Record(fields=fields, type=None):
            note_repeated(((field.key, field.span) for field in fields), "field", findings)
            for field in fields:
                _metadata_value(field.value, findings)
        case _ if not isinstance(value, _PLAIN_VALUES):
            hint = "write a text, a number, a duration, true, false, a word, a list or a record"
            findings.error("metadata", "metadata holds plain values", value.span, hint)


def _types(file: ast.File, findings: Findings) -> None:
    declared = [node for node in file.declarations if isinstance(node, ast.TypeAliasDecl)]
    names = {node.name: node for node in declared}
    note_repeated(((node.name, node.span) for node in declared), "type", findings)
    for node in declared:
        if node.name in BUILTIN_TYPES or node.name in GENERIC_TYPES:
            findings.error("duplicate", f"type `{node.name}` is built in", node.span, "give it another name")
        note_repeated(((field.name, field.span) for field in node.fields), "field", findings)
        if node.target is not None and _runs_in_a_circle(node, names):
            findings.error("type", f"type `{node.name}` stands for itself", node.span)
    for reference in _references(file):
        _reference(reference, names, findings)
    for node in declared:
        if node.target is not None:
            _reference(ast.TypeRef(node.target, span=node.span), names, findings)


def _references(node: ast.Node) -> Iterator[ast.TypeRef]:
    pending = [node]
    while pending:
        found = pending.pop()
        if isinstance(found, ast.TypeRef):
            yield found
        pending += children(found)


def _reference(reference: ast.TypeRef, declared: Mapping[str, ast.TypeAliasDecl], findings: Findings) -> None:
    name, given = reference.name, len(reference.arguments)
    wanted = GENERIC_TYPES.get(name, 0)
    if name not in GENERIC_TYPES and name not in BUILTIN_TYPES and name not in declared:
        hint = did_you_mean(name, (*BUILTIN_TYPES, *GENERIC_TYPES, *declared)) or f"declare it: `type {name} = …`"
        findings.error("unknown_type", f"unknown type `{name}`", reference.span, hint)
    elif given != wanted:
        example = f"`{name}<{', '.join('TKVE'[:wanted])}>`" if wanted else f"`{name}`"
        findings.error("type", f"type `{name}` takes {wanted} types, not {given}", reference.span, f"write {example}")


def _runs_in_a_circle(node: ast.TypeAliasDecl, declared: Mapping[str, ast.TypeAliasDecl]) -> bool:
    seen = {node.name}
    following = declared.get(node.target or "")
    while following is not None:
        if following.name in seen:
            return True
        seen.add(following.name)
        following = declared.get(following.target or "")
    return False


def _records(file: ast.File) -> Mapping[str, frozenset[str]]:
    """Fields of every record type, under its own name and those of its aliases."""
    names = {node.name: node for node in file.declarations if isinstance(node, ast.TypeAliasDecl)}
    found: dict[str, frozenset[str]] = {}
    for name, node in names.items():
        end = node
        while end.target is not None and end.target in names and not _runs_in_a_circle(end, names):
            end = names[end.target]
        if end.target is None:
            found[name] = frozenset(field.name for field in end.fields)
    return found


def _functions(nodes: Iterable[ast.Declaration | ast.AgentItem], findings: Findings) -> dict[str, ast.Function]:
    """The functions among some declarations, by name; what is wrong with their heads is noted."""
    declared = [node for node in nodes if isinstance(node, ast.Function)]
    note_repeated(((node.name, node.span) for node in declared), "function", findings)
    for node in declared:
        note_repeated(((item.name, item.span) for item in node.parameters), "parameter", findings)
        if node.name in EFFECTS or node.name in PURE or node.name in LATER_EFFECTS:
            findings.error("duplicate", f"function `{node.name}` is built in", node.span, "give it another name")
    return {node.name: node for node in declared}


# --- agents -----------------------------------------------------------------------------------


def _agents(file: ast.File, common: Mapping[str, ast.Function], tools: Tools, findings: Findings) -> None:
    agents = [node for node in file.declarations if isinstance(node, ast.Agent)]
    note_repeated(((node.name, node.span) for node in agents), "agent", findings)
    records = _records(file)
    named = {node.name: node for node in agents}
    plain = BodyChecker(findings, Surroundings(common, records, tools, agents=named))
    run_as_main = {id(functions_of(agent, file).get(MAIN)) for agent in agents if _runs_main(agent)}
    for function in common.values():
        if id(function) not in run_as_main:
            plain.check(function.body, function.parameters)
    for agent in agents:
        note_repeated(((item.name, item.span) for item in agent.parameters), "parameter", findings)
        own = _functions(agent.items, findings)
        visible = functions_of(agent, file)
        capabilities = capabilities_of(agent)
        _capabilities(agent, tools, findings)
        tier = _with(agent, visible, findings)
        around = Surroundings(
            visible,
            records,
            tools,
            capabilities,
            named,
            agent.name,
            contained=tier in {SecurityTier.TIER1, SecurityTier.TIER2},
        )
        checker = BodyChecker(findings, around)
        for function in own.values():
            if function.name != MAIN or not _runs_main(agent):
                checker.check(function.body, function.parameters)
        body = body_of(agent, visible)
        if body is not None:
            checker.check(body, agent.parameters)


def _runs_main(agent: ast.Agent) -> bool:
    return body_of(agent, {}) is None


def _with(agent: ast.Agent, functions: Mapping[str, ast.Function], findings: Findings) -> SecurityTier | None:
    """Check the block; returns the sandbox that it names."""
    blocks = [item for item in agent.items if isinstance(item, ast.With)]
    for further in blocks[1:]:
        message = f"agent `{agent.name}` has a `with` block already"
        findings.error("duplicate", message, further.span, "put both into one")
    tier = None
    for block in blocks:
        tier = read_settings(block, findings).sandbox
    body, main = body_of(agent, functions), functions.get(MAIN)
    if body is None:
        hint = "give it a `with` block or a function `main`"
        findings.warning("no_body", f"agent `{agent.name}` does nothing", agent.span, hint)
    elif main is not None and body is main.body and main.parameters:
        message = f"`{MAIN}` takes no parameters: the inputs of the agent are its variables"
        findings.error("main", message, main.span, f"write `function {MAIN}()`")
    elif main is not None and body is not main.body and main in agent.items:
        hint = f"call it something else than `{MAIN}`, or leave the `with` block empty"
        findings.warning("main", f"`{MAIN}` does not run: the `with` block does", main.span, hint)
    return tier


def _capabilities(agent: ast.Agent, tools: Tools, findings: Findings) -> None:
    items = [item for block in agent.items if isinstance(block, ast.Capabilities) for item in block.items]
    words = [(item.value if isinstance(item, ast.String) else item.id, item.span) for item in items]
    note_repeated(iter(words), "capability", findings)
    for word, span in words:
        if word in LATER_EFFECTS:
            findings.later(word, span)
        elif TOOL_PATTERN.fullmatch(word):
            if (hint := unknown_tool(word, tools)) is not None:
                findings.error("unknown_tool", f"unknown tool `{word}`", span, hint)
        elif word not in CAPABLE_EFFECTS:
            known = ", ".join(f"`{name}`" for name in CAPABLE_EFFECTS)
            hint = did_you_mean(word, (*CAPABLE_EFFECTS, *(tools or ())))
            hint = hint or f"write `server.tool`, `server.*` or one of {known}"
            findings.error("capability", f"`{word}` is no tool and no effect", span, hint)


# --- policies ---------------------------------------------------------------------------------


def _rules(file: ast.File, tools: Tools, findings: Findings) -> None:
    common = [node for node in file.declarations if isinstance(node, ast.Policy)]
    agents = [node for node in file.declarations if isinstance(node, ast.Agent)]
    owners = [common, *([item for item in agent.items if isinstance(item, ast.Policy)] for agent in agents)]
    for policies in owners:
        note_repeated(((policy.name, policy.span) for policy in policies), "policy", findings)
        for policy in policies:
            _nots(policy, findings)
    for compiled in compile_rules(file, tools, findings).values():
        for made, error in check_cedar((*compiled.shared, *compiled.own)):
            span = ast.Span(made.place.line, made.place.column, 0, 0)
            findings.error("rule", error.message, span, error.hint or "split the rule in several")


def _nots(policy: ast.Policy, findings: Findings) -> None:
    pending: list[ast.Node] = [policy]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Binary):
            note_not(node, findings)
        pending += children(node)

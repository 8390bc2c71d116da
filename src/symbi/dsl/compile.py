"""From a checked file to what the floors above take: agents, limits, Cedar policies. Pure."""

import hashlib
from dataclasses import replace
from functools import partial

from symbi.dsl import ast
from symbi.dsl.check import body_of, check, functions_of, has_body, with_block
from symbi.dsl.findings import ERROR, Findings
from symbi.dsl.memories import read_memory
from symbi.dsl.names import Tools
from symbi.dsl.rules import AgentPolicies, capabilities_of, compile_rules
from symbi.dsl.schedules import read_schedules
from symbi.dsl.settings import Settings, read_settings
from symbi.dsl.spec import AgentSpec, CompiledFile, Diagnostic
from symbi.errors import DslError
from symbi.types import AgentId, JsonValue


def compile_file(file: ast.File, text: str, *, tools: Tools = None) -> CompiledFile:
    """Check a file and make of it what can be run. Warnings do not stop it; `check` tells them.

    Args:
        file: The parsed file.
        text: Its source; the digest of it, as UTF-8, stands in every agent's spec.
        tools: As for `check`.

    Raises:
        DslError: The file is wrong; it is about the first error, and `fields["diagnostics"]` lists all of them.
    """
    _refuse_errors(check(file, tools=tools))
    findings = Findings(file.name)
    rules = compile_rules(file, tools, findings)
    memory = read_memory(file, findings)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    agents = [node for node in file.declarations if isinstance(node, ast.Agent)]
    compiled = CompiledFile(
        file=file.name,
        agents=tuple(
            replace(_agent(agent, file, digest, rules[agent.name], findings), memory=memory) for agent in agents
        ),
        policies=tuple(policy for agent in agents for policy in rules[agent.name].shared),
        metadata=tuple(
            (entry.key, plain_value(entry.value))
            for node in file.declarations
            if isinstance(node, ast.Metadata)
            for entry in node.entries
        ),
        schedules=read_schedules(file, partial(has_body, file), findings),
    )
    _refuse_errors(findings.sorted())
    return compiled


def plain_value(value: ast.Expr) -> JsonValue:
    """A value of metadata as JSON; a word is its text, a duration is as written (`30s`)."""
    match value:
        case ast.String(value=text):
            return text
        case ast.Number(value=number):
            return number
        case ast.Boolean(value=truth):
            return truth
        case ast.Name(id=name):
            return name
        case ast.Duration(amount=amount, unit=unit):
            return f"{amount}{unit}" if len(unit) == 1 else f"{amount}.{unit}"
        case ast.Array(items=items):
            return [plain_value(item) for item in items]
        case ast.Record(fields=fields):
            return {field.key: plain_value(field.value) for field in fields}
        case _:
            raise DslError("metadata holds plain values", code="dsl.metadata")


def _agent(agent: ast.Agent, file: ast.File, digest: str, policies: AgentPolicies, findings: Findings) -> AgentSpec:
    block = with_block(agent)
    settings = Settings() if block is None else read_settings(block, findings)
    functions = functions_of(agent, file)
    return AgentSpec(
        id=AgentId(agent.name),
        file=file.name,
        source_digest=digest,
        parameters=agent.parameters,
        capabilities=capabilities_of(agent),
        sandbox=settings.sandbox,
        limits=settings.limits,
        assumed=settings.assumed,
        policies=policies.own,
        functions=tuple(functions.values()),
        body=body_of(agent, functions),
    )


def _refuse_errors(diagnostics: tuple[Diagnostic, ...]) -> None:
    errors = [found for found in diagnostics if found.severity == ERROR]
    if errors:
        first = errors[0]
        raise DslError(
            first.message,
            code=first.code,
            hint=first.hint or None,
            place=first.place,
            diagnostics=[_as_json(found) for found in errors],
        )


def _as_json(found: Diagnostic) -> JsonValue:
    return {
        "severity": found.severity,
        "code": found.code,
        "message": found.message,
        "file": found.place.file,
        "line": found.place.line,
        "column": found.place.column,
        "hint": found.hint,
    }

"""`symbi policy check`: parse, validate, and remark on what the policies cannot mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symbi.cli.options import Agents, Config, Json
from symbi.cli.output import EXIT_USAGE, errors_to_exit, out, print_json
from symbi.config import Settings, load_settings
from symbi.policy.lint import Known, Lint, lint
from symbi.policy.policies import PolicySet
from symbi.types import OPERATOR_AGENT, SYSTEM_AGENT
from symbi.wiring import compile_agents, known_tools, load_policies, verify_policies


def check(
    *,
    agent_files: Agents = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors: exit code 2.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Parse the policies of the configuration, validate them, also their signature, and warn of what does nothing."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        verify_policies(settings)
        policies = load_policies(settings, agent_files or (), known_tools(settings))
        found = lint(policies, known(settings, agent_files or ()))
        if as_json:
            listed = [{"id": p.id, "file": p.file, "line": p.line, "effect": p.effect} for p in policies.policies]
            print_json(
                {
                    "version": policies.version,
                    "policies": listed,
                    "warnings": [str(each) for each in found],
                    "lints": [_json(each) for each in found],
                }
            )
        else:
            _print(policies, found, strict=strict)
        if strict and found:
            raise typer.Exit(EXIT_USAGE)


def known(settings: Settings, agent_files: Sequence[Path]) -> Known:
    """What the configuration says that there is. Of agents only where their files are given: they are not listed."""
    agents = {str(agent.name) for agent in settings.agents}
    groups = frozenset(group for agent in settings.agents for group in agent.groups)
    servers = frozenset(server.name for server in settings.mcp.servers)
    if not agent_files:
        return Known(None, groups, servers)
    files = {str(spec.id) for path in agent_files for spec in compile_agents(path).agents}
    return Known(frozenset({*agents, *files, SYSTEM_AGENT, OPERATOR_AGENT}), groups, servers)


def _json(found: Lint) -> dict[str, object]:
    return {
        "code": found.code,
        "policy": found.policy,
        "file": found.place.file,
        "line": found.place.line,
        "column": found.place.column,
        "message": found.message,
        "hint": found.hint,
    }


def _print(policies: PolicySet, found: Sequence[Lint], *, strict: bool) -> None:
    word = "[bold red]error:[/]" if strict else "[yellow]warning:[/]"
    for each in found:
        out.print(f"{word} {escape(f'{each.place}: {each.message}')} [dim]\\[{each.code}][/]")
        out.print(f"  [bold]hint:[/] {escape(each.hint)}")
    for policy in policies.policies:
        colour = "green" if policy.effect == "permit" else "red"
        out.print(f"[{colour}]{policy.effect:<7}[/] {escape(policy.id)} [dim]{escape(policy.file)}:{policy.line}[/]")
    out.print(f"{len(policies.policies)} policies, {len(found)} warnings, version {policies.version[:16]}")

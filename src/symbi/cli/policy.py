"""`symbi policy`: check a policy set, explain a decision, run its test cases. All of it works offline."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symbi.cli.options import Agents, Config, Json
from symbi.cli.output import EXIT_DENIED, EXIT_FAILED, errors_to_exit, out, print_json
from symbi.cli.policy_check import check
from symbi.cli.policy_diff import diff
from symbi.cli.policy_replay import replay
from symbi.cli.policy_set import set_policies
from symbi.cli.policy_sign import sign
from symbi.cli.policy_suggest import suggest_policies
from symbi.cli.policy_what_if import print_what_if, what_if_json
from symbi.cli.policy_why import why
from symbi.config import load_settings
from symbi.errors import InputError, did_you_mean
from symbi.guard.action import InvokeTool, ToolRef, agent_resource
from symbi.guard.records import decision_facts
from symbi.policy.cases import parse_cases, run_cases, verdict_of
from symbi.policy.catalog import ToolType
from symbi.policy.context import NO_REQUEST, whole_label
from symbi.policy.counterfactual import what_if
from symbi.policy.decision import Deny, PolicyRequest
from symbi.policy.engine import PolicySet
from symbi.policy.explain import explain as explain_request
from symbi.types import AgentId, Integrity, JsonValue, Label, Principal, RecoveryClass, Resource, ToolName
from symbi.wiring import known_tools, load_policies, read_text

app = typer.Typer(help="Check, explain, test and replay policies.", no_args_is_help=True)
app.command("check")(check)
app.command("suggest")(suggest_policies)
app.command("why")(why)
app.command("diff")(diff)
app.command("set")(set_policies)
app.command("sign")(sign)
app.command("replay")(replay)


@app.command("explain")
def explain(  # noqa: PLR0913 - one option for each part of a request
    *,
    agent: Annotated[str, typer.Option(help="Who asks.")],
    tool: Annotated[str | None, typer.Option(help="A tool call: `server.tool`.")] = None,
    arguments: Annotated[str, typer.Option(help="Its arguments, as a JSON object.")] = "{}",
    untrusted: Annotated[list[str] | None, typer.Option(help="An argument that came out of a tool's answer.")] = None,
    action: Annotated[str | None, typer.Option(help="Any other action of the schema.")] = None,
    resource: Annotated[str | None, typer.Option(help="Its resource: `Type::id`.")] = None,
    context: Annotated[str, typer.Option(help="Its context, as a JSON object.")] = "{}",
    agent_files: Agents = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say what would be decided, by which policies (file and line), and what would change it. Exit code 3 is no."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        tools = known_tools(settings)
        policies = load_policies(settings, agent_files or (), tools)
        principal = settings.principal(AgentId(agent))
        if tool is not None:
            request = _tool_request(principal, tool, _object(arguments, "--arguments"), untrusted or (), tools)
        elif action is not None and resource is not None:
            facts = {"request": dict(NO_REQUEST), **_object(context, "--context")}
            if "label" in facts:
                facts["label"] = whole_label(facts["label"])
            request = PolicyRequest(principal, action, _resource(resource, principal), facts)
        else:
            msg = "give either `--tool`, or `--action` and `--resource`"
            raise InputError(msg, code="input.usage")
        _explain(policies, request, as_json=as_json)


def _resource(text: str, principal: Principal) -> Resource:
    """`Type::id` with the attributes that the runtime itself would give it."""
    kind, parted, name = text.partition("::")
    name = name.strip('"')
    if not parted or not name:
        msg = f"`--resource {text}` is not of the form Type::id"
        raise InputError(msg, code="input.usage")
    if kind == "Agent" and name == principal.agent:
        return agent_resource(principal)
    return Resource(kind, name, (("tier", name),) if kind == "Sandbox" else ())


def _object(text: str, option: str) -> dict[str, JsonValue]:
    try:
        value = json.loads(text)
    except ValueError as error:
        msg = f"`{option}` is not JSON: {error}"
        raise InputError(msg, code="input.usage") from error
    if not isinstance(value, dict):
        msg = f"`{option}` must be a JSON object"
        raise InputError(msg, code="input.usage")
    return value


def _tool_request(
    principal: Principal,
    name: str,
    values: dict[str, JsonValue],
    untrusted: list[str] | tuple[()],
    tools: tuple[ToolType, ...],
) -> PolicyRequest:
    known = {str(tool.name): tool for tool in tools}
    if name not in known:
        hint = did_you_mean(name, known) or "its definition is known once `symbi tools verify` or a run has pinned it"
        msg = f"unknown tool `{name}`"
        raise InputError(msg, code="input.tool", hint=hint)
    labels = {key: Label(Integrity.UNTRUSTED if key in untrusted else Integrity.USER) for key in values}
    server = name.split(".", 1)[0]
    reference = ToolRef(
        ToolName(name), server, "", known[name].input_schema, verified=True, recovery=RecoveryClass.NEVER_RETRY
    )
    worst = Label(Integrity.UNTRUSTED) if untrusted else Label()
    return InvokeTool(principal=principal, tool=reference, values=values, labels=labels, label=worst).request()


def _explain(policies: PolicySet, request: PolicyRequest, *, as_json: bool) -> None:
    explanation = explain_request(policies, request)
    found = what_if(policies, request, explanation.decision)
    groups = (
        ("decided by", explanation.deciding),
        ("came near", explanation.unmet),
        ("also in scope", explanation.related),
    )
    if as_json:
        listed = {
            title.replace(" ", "_"): [{"id": p.id, "file": p.file, "line": p.line, "text": p.text} for p in group]
            for title, group in groups
        }
        facts = decision_facts(explanation.decision)
        print_json({"summary": explanation.summary, **facts, **listed, "what_if": what_if_json(found)})
    else:
        colour = "red" if isinstance(explanation.decision, Deny) else "green"
        out.print(f"[bold {colour}]{escape(explanation.summary)}[/]")
        for title, group in groups:
            for policy in group:
                out.print(f"\n[bold]{title}[/] {escape(policy.id)} [dim]{escape(policy.file)}:{policy.line}[/]")
                out.print(escape(policy.text.strip()), style="dim")
        print_what_if(found, denied=isinstance(explanation.decision, Deny))
    if isinstance(explanation.decision, Deny):
        raise typer.Exit(EXIT_DENIED)


@app.command("test")
def run_files(
    files: Annotated[list[Path], typer.Argument(help="Files of cases (TOML).")],
    *,
    agent_files: Agents = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Run policy test cases; exit code 1 if one fails."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        policies = load_policies(settings, agent_files or (), known_tools(settings))
        results = []
        for file in files:
            results += run_cases(policies, parse_cases(str(file), read_text(file)))
        failed = [result for result in results if result.problems]
        if as_json:
            print_json(
                [
                    {
                        "name": r.case.name,
                        "passed": not r.problems,
                        "verdict": verdict_of(r.decision),
                        "problems": list(r.problems),
                    }
                    for r in results
                ]
            )
        else:
            for result in results:
                mark = "[bold red]FAIL[/]" if result.problems else "[green]ok[/]  "
                out.print(f"{mark} {escape(result.case.name)}")
                for problem in result.problems:
                    out.print(f"     {escape(problem)}")
            out.print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
        if failed or not results:
            raise typer.Exit(EXIT_FAILED)

"""`symbi policy explain`: what would be decided on a request that is given, why, and what would change it."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symbi.agent.task import parse_grant
from symbi.cli.options import Agents, Config, Json
from symbi.cli.output import EXIT_DENIED, errors_to_exit, out, print_json
from symbi.cli.policy_tools import known_refs
from symbi.cli.policy_what_if import print_what_if, what_if_json
from symbi.config import load_settings
from symbi.errors import InputError, did_you_mean
from symbi.guard.action import InvokeTool, ToolRef, agent_resource
from symbi.guard.records import decision_facts
from symbi.policy.context import NO_REQUEST, whole_label
from symbi.policy.counterfactual import what_if
from symbi.policy.decision import PASSING, Deny, PolicyRequest
from symbi.policy.engine import PolicySet
from symbi.policy.explain import explain as explain_request
from symbi.policy.flow import join
from symbi.policy.grants import Grant
from symbi.types import AgentId, Confidentiality, Integrity, JsonValue, Label, Principal, Resource
from symbi.wiring import known_tools, load_policies, read_text


def explain(  # noqa: PLR0913 - one option for each part of a request
    *,
    agent: Annotated[str, typer.Option(help="Who asks.")],
    tool: Annotated[
        str | None, typer.Option(help="A tool call: `server.tool`, as its manifest and its pin describe it.")
    ] = None,
    arguments: Annotated[str, typer.Option(help="Its arguments, as a JSON object.")] = "{}",
    untrusted: Annotated[list[str] | None, typer.Option(help="An argument that came out of a tool's answer.")] = None,
    confidential: Annotated[list[str] | None, typer.Option(help="An argument that is confidential.")] = None,
    grant: Annotated[
        Path | None, typer.Option(help="What the task calls for: a file as `symbi run --grant` takes it.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Any other action of the schema.")] = None,
    resource: Annotated[str | None, typer.Option(help="Its resource: `Type::id`.")] = None,
    context: Annotated[
        str, typer.Option(help="Its context, as a JSON object; of a tool call `time`, `usage`, `history`, `request`.")
    ] = "{}",
    agent_files: Agents = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say what would be decided, by which policies (file and line), and what would change it. Exit code 3 is no."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        policies = load_policies(settings, agent_files or (), known_tools(settings))
        principal = settings.principal(AgentId(agent))
        facts = _object(context, "--context")
        if tool is not None:
            refs = known_refs(settings)
            values = _object(arguments, "--arguments")
            labels = _labels(values, untrusted or (), confidential or ())
            call = InvokeTool(
                principal=principal,
                tool=_known(tool, refs),
                values=values,
                labels=labels,
                label=join(Label(), *labels.values()),
                grant=None if grant is None else _grant(grant, refs),
            )
            request = _told(call.request(), facts)
        elif action is not None and resource is not None:
            facts = {"request": dict(NO_REQUEST), **facts}
            if "label" in facts:
                facts["label"] = whole_label(facts["label"])
            request = PolicyRequest(principal, action, _resource(resource, principal), facts)
        else:
            msg = "give either `--tool`, or `--action` and `--resource`"
            raise InputError(msg, code="input.usage")
        _explain(policies, request, as_json=as_json)


def _known(name: str, tools: dict[str, ToolRef]) -> ToolRef:
    if name not in tools:
        hint = did_you_mean(name, tools) or "its definition is known once `symbi tools verify` or a run has pinned it"
        msg = f"unknown tool `{name}`"
        raise InputError(msg, code="input.tool", hint=hint)
    return tools[name]


def _labels(
    values: dict[str, JsonValue], untrusted: Collection[str], confidential: Collection[str]
) -> dict[str, Label]:
    for option, names in (("--untrusted", untrusted), ("--confidential", confidential)):
        for name in names:
            if name not in values:
                msg = f"`{option} {name}` names no argument that is given"
                hint = did_you_mean(name, values) or "`--arguments` gives them"
                raise InputError(msg, code="input.usage", hint=hint)
    return {
        name: Label(
            Integrity.UNTRUSTED if name in untrusted else Integrity.USER,
            Confidentiality.CONFIDENTIAL if name in confidential else Confidentiality.PUBLIC,
        )
        for name in values
    }


def _grant(file: Path, tools: dict[str, ToolRef]) -> Grant:
    """The grant of one task, as `symbi run --grant` takes it; of tools that there are."""
    grant = parse_grant(str(file), read_text(file))
    for name in grant.tools:
        if name not in tools:
            msg = f"the grant in `{file}` names the unknown tool `{name}`"
            hint = did_you_mean(name, tools) or "`symbi tools list` shows the tools there are"
            raise InputError(msg, code="policy.grant", hint=hint)
    return grant


def _told(request: PolicyRequest, facts: dict[str, JsonValue]) -> PolicyRequest:
    """A call with what `--context` says of its past."""
    for name in facts:
        if name not in PASSING:
            msg = f"`--context` says `{name}` of a tool call, which follows from the call itself"
            known = ", ".join(f"`{one}`" for one in sorted(PASSING))
            raise InputError(msg, code="input.usage", hint=f"it can say {known}")
    return PolicyRequest(request.principal, request.action, request.resource, {**request.context, **facts})


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

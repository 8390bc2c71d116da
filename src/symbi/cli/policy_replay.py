"""`symbi policy replay`: judge recorded traces of tool calls with manifests and policies. It works offline."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from symbi.cli.options import Json
from symbi.cli.output import err, errors_to_exit, out
from symbi.errors import InputError, did_you_mean
from symbi.policy.decision import AllowWithConditions
from symbi.policy.inference import describe
from symbi.policy.policies import PolicySet
from symbi.policy.replay import Replay, ReplayTool, Trace, Verdict, declared_types, read_grants, read_traces
from symbi.policy.source import PolicySource
from symbi.tools.manifest import Manifest, ToolEntry, parse_manifest
from symbi.tools.text import printable
from symbi.types import AgentId, JsonValue, Principal
from symbi.wiring import read_text

MAX_TRACE_BYTES: Final = 268_435_456  # bounds a file of traces, which is held in memory


def replay(
    file: Annotated[Path, typer.Argument(help="Traces: JSON, one a line.")],
    *,
    manifests: Annotated[Path, typer.Option(help="A manifest, or a folder of them (`*.toml`).")],
    policies: Annotated[Path, typer.Option(help="A policy file, or a folder of them (`*.cedar`).")],
    grants: Annotated[Path | None, typer.Option(help="Grants of the tasks (JSON, by `suite/user`).")] = None,
    agent: Annotated[str, typer.Option(help="Who calls, for the policies.")] = "replay",
    as_json: Json = False,
) -> None:
    """Judge each step of recorded traces, by the prompt and the steps before it: allow, approve or deny."""
    with errors_to_exit(as_json=as_json):
        tools, servers = declared_tools(manifests)
        sources = [PolicySource(str(path), read_text(path)) for path in files_of(policies, "*.cedar")]
        judge = Replay(
            policies=PolicySet.load(sources, (), declared_types(tools)),
            tools=tools,
            servers=servers,
            grants=None if grants is None else read_grants(str(grants), read_large(grants)),
            agent=Principal(AgentId(agent)),
        )
        traces = read_traces(str(file), read_large(file))
        verdicts = list(judge.run(traces))
        if as_json:
            for trace, steps in zip(traces, verdicts, strict=True):
                sys.stdout.write(json.dumps(answer(trace, steps)) + "\n")
        else:
            _summarise(traces, verdicts)
            for warning in _unknown(judge, traces):
                err.print(f"[bold yellow]warning:[/] {escape(printable(warning))}")


def _unknown(judge: Replay, traces: Iterable[Trace]) -> Iterator[str]:
    """Names that fit nothing, as a misspelt one does."""
    tasks = {f"{trace.suite}/{trace.user}" for trace in traces}
    called = {judge.full_name(trace.suite, step.tool) for trace in traces for step in trace.steps}
    for name in sorted(called - set(judge.tools)):
        hint = did_you_mean(name, judge.tools)
        yield f"no manifest names the tool `{name}` of the traces" + (f"; {hint}" if hint else "")
    for task, grant in (judge.grants or {}).items():
        if task not in tasks:
            yield f"the grant of `{task}` fits no trace"
        for name in sorted(set(grant.tools) - set(judge.tools) - called):
            hint = did_you_mean(name, judge.tools)
            yield f"the grant of `{task}` names the unknown tool `{name}`" + (f"; {hint}" if hint else "")


def answer(trace: Trace, verdicts: Iterable[Verdict]) -> Mapping[str, JsonValue]:
    """One trace's line of `--json`."""
    return {"suite": trace.suite, "user": trace.user, "steps": [_step(verdict) for verdict in verdicts]}


def _step(verdict: Verdict) -> Mapping[str, JsonValue]:
    decision = verdict.decision
    conditions = decision.conditions if isinstance(decision, AllowWithConditions) else ()
    return {
        "tool": verdict.tool,
        "verdict": verdict.verdict,
        "policies": [{"id": ref.id, "file": ref.file, "line": ref.line} for ref in decision.policies],
        "conditions": [f"{condition.kind.value}={condition.value}" for condition in conditions],
        "labels": describe(verdict.found.labels),
    }


def _summarise(traces: Iterable[Trace], verdicts: Iterable[Iterable[Verdict]]) -> None:
    """What is not simply allowed, and the counts."""
    counts, steps = Counter[str](), Counter[str]()
    for trace, judged in zip(traces, verdicts, strict=True):
        found = [verdict.verdict for verdict in judged]
        worst = next((one for one in ("deny", "approve") if one in found), "allow")
        counts[worst] += 1
        steps.update(found)
        if worst == "allow":
            continue
        colour = "red" if worst == "deny" else "yellow"
        out.print(f"[{colour}]{worst:<7}[/] {escape(trace.suite)}/{escape(trace.user)}")
        for index, verdict in enumerate(judged):
            if verdict.verdict != "allow":
                tainted = ", ".join(sorted(verdict.found.facts.tainted)) or "none"
                by = ", ".join(ref.id for ref in verdict.decision.policies) or "no policy permits it"
                line = f"step {index}: {verdict.verdict} {verdict.tool}; tainted: {tainted}; by: {by}"
                out.print(f"        {escape(line)}")
    for name, counted in (("traces", counts), ("steps", steps)):
        figures = ", ".join(f"{counted[one]} {word}" for one, word in _WORDS.items())
        out.print(f"{sum(counted.values())} {name}: {figures}")


_WORDS: Final = {"allow": "allowed", "approve": "need a person", "deny": "denied"}


def declared_tools(path: Path) -> tuple[dict[str, ReplayTool], dict[str, ReplayTool]]:
    """What manifests say, by tool, and of the tools that they do not name, by server."""
    read: dict[str, tuple[Manifest, Path]] = {}
    for each in files_of(path, "*.toml"):
        manifest = parse_manifest(str(each), read_text(each))
        if manifest.server in read:
            msg = f"`{each}` and `{read[manifest.server][1]}` are both of the server `{manifest.server}`"
            raise InputError(msg, code="input.manifest", hint="put what they say into one")
        read[manifest.server] = manifest, each
    tools = {
        f"{server}.{name}": _tool(entry)
        for server, (manifest, _) in read.items()
        for name, entry in manifest.tools.items()
    }
    return tools, {server: _tool(manifest.rest) for server, (manifest, _) in read.items()}


def _tool(entry: ToolEntry) -> ReplayTool:
    return ReplayTool(entry.recovery, entry.flow)


def files_of(path: Path, pattern: str) -> list[Path]:
    """A file, or the files of a folder and of those below it, in order.

    Raises:
        InputError: There is none.
    """
    if path.is_file():
        return [path]
    found = sorted(path.rglob(pattern)) if path.is_dir() else []
    if not found:
        msg = f"`{path}` is neither a file nor a folder with `{pattern}` in it"
        raise InputError(msg, code="input.unreadable")
    return found


def read_large(path: Path) -> str:
    """A file of traces or grants as text.

    Raises:
        InputError: It cannot be read, is not UTF-8, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TRACE_BYTES + 1)
        if len(data) > MAX_TRACE_BYTES:
            msg = f"`{path}` is larger than {MAX_TRACE_BYTES} bytes"
            raise InputError(msg, code="input.size", hint="split it: traces do not depend on each other")
        return data.decode()
    except OSError as error:
        msg = f"cannot read `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unreadable") from error
    except UnicodeDecodeError as error:
        msg = f"`{path}` is not UTF-8: {error.reason} at byte {error.start}"
        raise InputError(msg, code="input.encoding") from error

"""`symbi agents` and `symbi runs`: what is at work in a data folder, and what became of what was."""

import json
import sys
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.texts import split_pairs
from symbi.api.client import ask_owner, connect_owner
from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.cli.waiting import wait_s
from symbi.config import load_settings
from symbi.errors import ConfigError, DecryptionFailed, InputError, StoreUnavailable, did_you_mean
from symbi.guard.confidential import lost_text, open_column
from symbi.guard.vault import Vault, place
from symbi.tools.text import printable
from symbi.types import JsonValue, RunId
from symbi.wiring import open_reader, reading_vault

MAX_STDIN_CHARS: Final = 1_048_576  # of the inputs of a message

app = typer.Typer(
    help="See agents, make some that stay, send them messages, suspend, resume and stop them.", no_args_is_help=True
)
runs_app = typer.Typer(help="See what became of runs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The agent; `symbi agents list` shows those at work.")]


@app.command("list")
def list_agents(
    *,
    state: Annotated[str | None, typer.Option(help="Of those that stay, only the ones in this state.")] = None,
    after: Annotated[str, typer.Option(help="Of those that stay, only the ones behind this name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Of those that stay, so many at most.")] = 100,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List the agents at work and those that stay, and what of the pool is free."""
    with errors_to_exit(as_json=as_json):
        asked: dict[str, JsonValue] = {"after": after, "limit": limit}
        answer: Any = _ask(config, "agents.list", asked | ({} if state is None else {"state": state}))
        if as_json:
            print_json(answer)
            return
        for row in answer["agents"]:
            why = f" for {escape(row['reason'])}" if "reason" in row else ""
            out.print(
                f"[bold]{escape(printable(row['agent']))}[/] {row['state']}{why} since {row['started_at'][:19]}Z "
                f"[dim]run {row['run']}, {escape(printable(row['file']))}[/]"
            )
        waiting = ", ".join(f"{count} {name}" for name, count in answer["queued"].items() if count)
        free, whole = answer["free"], answer["capacity"]
        out.print(
            f"{len(answer['agents'])} at work, {waiting or 'none'} waiting; free: {free['memory_mib']} of "
            f"{whole['memory_mib']} MiB, {free['cpu_milli']} of {whole['cpu_milli']} milli-cores"
        )
        _show_persistent(answer)


def _show_persistent(answer: Any) -> None:
    """The agents that stay: a page of them, and how many there are."""
    for row in answer["persistent"]:
        why = f": [dim]{escape(printable(row['reason']))}[/]" if row["reason"] else ""
        out.print(f"[bold]{escape(printable(row['agent']))}[/] is {row['state']} since {row['changed_at'][:19]}Z{why}")
    if answer["states"]:
        states = ", ".join(f"{count} {state}" for state, count in answer["states"].items())
        out.print(f"agents that stay: {states}; {answer['in_memory']} in memory")
    if answer["next"] is not None:
        out.print(f"[dim]there are more: `symbi agents list --after {escape(printable(answer['next']))}`[/]")
    if answer["halted_by"]:
        by = escape(printable(answer["halted_by"]))
        out.print(f"[bold yellow]{by} has stopped everything:[/] nothing begins; `symbi agents resume --all`")


@app.command("show")
def show_agent(agent: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Show an agent: its run, what it has claimed, and who keeps it from going on; of one that stays, also its mailbox."""
    with errors_to_exit(as_json=as_json):
        answer: Any = _ask(config, "agents.show", {"agent": agent})
        if as_json:
            print_json(answer)
            return
        for row in answer["runs"]:
            out.print(
                f"[bold]{escape(printable(row['agent']))}[/] is [bold]{row['state']}[/] since {row['started_at'][:19]}Z"
            )
            out.print(f"  run {row['run']} of {escape(printable(row['file']))}; `symbi runs show` lists its effects")
            if "reason" in row:
                out.print(f"  held for {escape(row['reason'])}: `symbi agents resume` lets it go on now")
        if answer["persistent"] is not None:
            _show_standing(answer["persistent"], at_work=bool(answer["runs"]))
        claim = answer["claim"]
        if claim is not None:
            _show_claim(claim)
        elif any("reason" not in row for row in answer["runs"]):
            out.print("  it has claimed nothing yet")


def _show_standing(kept: Any, *, at_work: bool) -> None:
    """How an agent that stays stands."""
    if not at_work:
        why = f": {escape(printable(kept['reason']))}" if kept["reason"] else ""
        name = escape(printable(kept["agent"]))
        out.print(f"[bold]{name}[/] is [bold]{kept['state']}[/] since {kept['changed_at'][:19]}Z{why}")
        out.print(f"  of {escape(printable(kept['file']))}")
    parent = f" for {escape(printable(kept['parent']))}" if kept["parent"] else ""
    out.print(f"  it stays; made {kept['created_at'][:19]}Z{parent}, {kept['messages']} messages wait for it")
    first = kept["first"]
    if first is not None and not at_work:
        begun = (
            f"begun {first['begun']} times; `symbi runs show` tells how it stands" if first["begun"] else "not begun"
        )
        out.print(f"  the next one is {first['message']}, {begun}")
    if not kept["runnable"]:
        out.print("  [bold yellow]nobody has its file here:[/] give it to `symbi up`")


def _show_claim(claim: Any) -> None:
    """What an agent at work has claimed."""
    stands = "held" if claim["held"] else "waited for" if claim["waits"] else "given back"
    out.print(
        f"  {claim['memory_mib']} MiB and {claim['cpu_milli']} milli-cores are {stands}; {claim['priority']}"
        f"{', batch' if claim['batch'] else ''}, owner {escape(printable(claim['owner']))}"
    )
    if claim["waits_for_people"]:
        out.print("  it waits for people: `symbi approvals list`")
    if claim["suspended_by"] is not None:
        out.print(f"  suspended by {escape(printable(claim['suspended_by']))}: `symbi agents resume`")
    if claim["told_to_stop_for"] is not None:
        out.print(f"  told to stop for {escape(printable(claim['told_to_stop_for']))}")


@app.command("spawn")
def spawn(
    agent: Annotated[str, typer.Argument(help="The agent as a file of `symbi up` declares it.")],
    *,
    instance: Annotated[str | None, typer.Option(help="Make an instance of that name.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Make so many numbered instances.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make agents that stay, of a declaration that says so."""
    with errors_to_exit(as_json=as_json):
        if instance is not None and count is not None:
            raise InputError("give `--instance` or `--count`", code="input.usage")
        name = agent if instance is None else f"{agent}/{instance}"
        asked: dict[str, JsonValue] = {"agent": name} | ({} if count is None else {"count": count})
        answer: Any = _ask(config, "agents.spawn", asked)
        told = answer["first"] if answer["count"] == 1 else f"{answer['first']} to {answer['last']}"
        _told(answer, f"{told}: {answer['count']} made", as_json=as_json)


@app.command("send")
def send(  # noqa: PLR0913 - the options of the command
    agent: Annotated[str, typer.Argument(help="An agent that stays; `symbi agents list` shows them.")],
    *,
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="NAME=VALUE, once for each input.")] = None,
    body: Annotated[
        str | None, typer.Option("--json-inputs", help="All inputs as a JSON object; `-` reads it.")
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="Not before this time has passed: 90s, 5m.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Not once this time has passed.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="NAME=LABEL: what an input is.")] = None,
    subjects: Annotated[
        list[str] | None, typer.Option("--subject", metavar="WHO", help="Whom the inputs are about.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Send an agent a message: it is carried out once, as a run that bears the message's id."""
    with errors_to_exit(as_json=as_json):
        texts: dict[str, JsonValue] = dict(split_pairs(inputs or []))
        asked: dict[str, JsonValue] = {
            "agent": agent,
            "inputs": _object(body),
            "texts": texts,
            "labels": labels or [],
            "subjects": subjects or [],
        }
        for name, option, time in (("after_s", "--after", after), ("expires_s", "--expires", expires)):
            if time is not None:
                asked[name] = wait_s(time, option)
        answer: Any = _ask(config, "agents.send", asked)
        _told(answer, f"message {answer['message']} for {answer['agent']}; its run has this id", as_json=as_json)


def _object(text: str | None) -> dict[str, JsonValue]:
    """The inputs of a message as one JSON object.

    Raises:
        InputError: The text is none.
    """
    if text is None:
        return {}
    try:
        value = json.loads(sys.stdin.read(MAX_STDIN_CHARS) if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"`--json-inputs` is no JSON: {error}", code="input.value") from None
    if not isinstance(value, dict):
        raise InputError("`--json-inputs` is no JSON object", code="input.value", hint="the inputs by name")
    return value


@app.command("suspend")
def suspend(agent: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Suspend an agent before its next effect, or at once where it waits; it gives back what it holds."""
    with errors_to_exit(as_json=as_json):
        _told(
            _ask(config, "agents.suspend", {"agent": agent}), f"{agent} stops before its next effect", as_json=as_json
        )


@app.command("resume")
def resume(
    agent: Annotated[str | None, typer.Argument(help="The agent.")] = None,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Let things begin again after `stop --all`.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Let an agent that was suspended so go on, in its turn."""
    with errors_to_exit(as_json=as_json):
        arguments, said = _one_or_all(agent, everybody=everybody)
        answer = _ask(config, "agents.resume", arguments)
        _told(answer, "things begin again" if everybody else f"{said} goes on in its turn", as_json=as_json)


@app.command("stop")
def stop(
    agent: Annotated[str | None, typer.Argument(help="The agent.")] = None,
    *,
    everybody: Annotated[
        bool, typer.Option("--all", help="Stop everything: nothing begins by itself until `resume --all`.")
    ] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Stop an agent, or all of them, where they are; what they had in flight is settled, and the runs have failed."""
    with errors_to_exit(as_json=as_json):
        arguments, _ = _one_or_all(agent, everybody=everybody)
        answer: Any = _ask(config, "agents.stop", arguments)
        more = "; nothing begins until `symbi agents resume --all`" if everybody else ""
        count = len(answer["runs"])
        said = f"stopped {count}{more}" if everybody else f"{agent} is stopped, and {count} runs of it"
        _told(answer, said, as_json=as_json)


def _one_or_all(agent: str | None, *, everybody: bool) -> tuple[dict[str, JsonValue], str]:
    """Who is meant.

    Raises:
        InputError: Nobody, or somebody and everybody.
    """
    if (agent is None) is not everybody:
        msg = "name an agent, or give `--all`"
        raise InputError(msg, code="input.usage")
    return ({"all": True}, "") if agent is None else ({"agent": agent}, agent)


def _told(answer: JsonValue, said: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        out.print(escape(printable(said)))


def _ask(config: Any, operation: str, arguments: dict[str, JsonValue]) -> JsonValue:
    """Ask the owner of the data folder; without one, no agent is at work.

    Raises:
        SymbiError: What the owner said.
        StoreUnavailable: Nobody owns the folder.
    """
    settings = load_settings(config)
    connection = connect_owner(settings.runtime.data_dir)
    if connection is None:
        msg = f"no runtime is alive in `{settings.runtime.data_dir}`, so no agent is at work"
        hint = "`symbi up FILE` starts one that stays; `symbi runs list` shows what was"
        raise StoreUnavailable(msg, code="unavailable.control", hint=hint)
    return ask_owner(connection, operation, arguments)


@runs_app.command("list")
def list_runs(
    *,
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent.")] = None,
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many are looked at, newest first.")] = 100,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List runs, newest first."""
    with errors_to_exit(as_json=as_json):
        states = [one.value for one in RunState]
        if state not in {None, *states}:
            msg = f"no run is ever `{state}`"
            raise InputError(msg, code="input.value", hint=did_you_mean(str(state), states) or f"{', '.join(states)}")
        settings = load_settings(config)
        with open_reader(settings) as reader:
            found = [
                run for run in reader.runs(limit) if agent in {None, run.agent_id} and state in {None, run.state.value}
            ]
            vault = reading_vault(settings, reader)
            rows = [_run_json(run, vault) for run in found]
        if as_json:
            print_json(rows)
            return
        for run in found:
            ended = f" to {run.finished_at[:19]}Z" if run.finished_at else ""
            out.print(
                f"{run.run_id} [bold]{run.state.value:<8}[/] {escape(printable(run.agent_id))} "
                f"[dim]{run.started_at[:19]}Z{ended}[/]"
            )
        if not found:
            out.print("no runs")


@runs_app.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(help="The run; `symbi runs list` shows them.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show a run: how it stands, and each effect that its body asked for."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        with open_reader(settings) as reader:
            run = reader.get_run(RunId(run_id))
            if run is None:
                msg = f"there is no run `{run_id[:64]}`"
                raise InputError(msg, code="input.run", hint="`symbi runs list` shows them")
            effects = reader.effects_of(run.run_id)
            shown = _run_json(run, reading_vault(settings, reader))
        if as_json:
            rows = [
                {"position": e.position, "effect": e.effect_id, "action": e.action, "resource": e.resource,
                 "state": e.state.value, "attempt": e.attempt, "recovery": e.recovery.value}
                for e in effects
            ]  # fmt: skip
            print_json(shown | {"effects": rows})
            return
        out.print(f"run {run.run_id} of [bold]{escape(printable(run.agent_id))}[/] is [bold]{run.state.value}[/]")
        until = f"{run.finished_at[:19]}Z" if run.finished_at else "now"
        out.print(f"  {escape(printable(run.file))}, {run.started_at[:19]}Z to {until}")
        _show_error(shown["error"])
        if run.compacted:
            out.print("  compacted: `symbi audit show --run` tells what it did")
        for effect in effects:
            what = printable(f"{effect.action} on {effect.resource}")
            out.print(f"  {effect.position:>4} {effect.state.value:<10} {escape(what)} [dim]{effect.effect_id}[/]")


def _show_error(error: Any) -> None:
    """Why a run stands where it does."""
    if error is None:
        return
    place = ":".join(str(part) for part in error.get("place") or ())
    where, code = f"{place}: " if place else "", f" [{error['code']}]" if "code" in error else ""
    out.print(f"  {escape(printable(where + error['message'] + code))}")
    if error.get("hint"):
        out.print(f"  hint: {escape(printable(error['hint']))}")


def _run_json(run: RunRecord, vault: Vault) -> dict[str, JsonValue]:
    """A run for machines; its error as far as it opens."""
    return {
        "run": run.run_id,
        "agent": run.agent_id,
        "state": run.state.value,
        "file": run.file,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "error": _error_of(run, vault),
    }


def _error_of(run: RunRecord, vault: Vault) -> JsonValue:
    shown: JsonValue = None
    try:
        data = open_column(vault, run.error, place("runs", "error", run.run_id))
        if data is not None:
            shown = json.loads(data)
    except (DecryptionFailed, ConfigError) as lost:
        shown = {"message": lost_text(lost)}
    except ValueError as error:
        msg = f"the error of run `{run.run_id}` cannot be read: the store was altered"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error
    return shown

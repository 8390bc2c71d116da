"""`symbi agents` and `symbi runs`: what is at work in a data folder, and what became of what was."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape

from symbi.agent.journal import RunRecord, RunState
from symbi.api.client import ask_owner, connect_owner
from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.config import load_settings
from symbi.errors import ConfigError, DecryptionFailed, InputError, StoreUnavailable, did_you_mean
from symbi.guard.confidential import lost_text, open_column
from symbi.guard.vault import Vault, place
from symbi.tools.text import printable
from symbi.types import JsonValue, RunId
from symbi.wiring import open_reader, reading_vault

app = typer.Typer(help="See the agents at work, suspend, resume and stop them.", no_args_is_help=True)
runs_app = typer.Typer(help="See what became of runs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The agent; `symbi agents list` shows those at work.")]


@app.command("list")
def list_agents(*, as_json: Json = False, config: Config = None) -> None:
    """List the agents at work, and what of the pool is free."""
    with errors_to_exit(as_json=as_json):
        answer: Any = _ask(config, "agents.list", {})
        if as_json:
            print_json(answer)
            return
        for row in answer["agents"]:
            out.print(
                f"[bold]{escape(printable(row['agent']))}[/] {row['state']} since {row['started_at'][:19]}Z "
                f"[dim]run {row['run']}, {escape(printable(row['file']))}[/]"
            )
        waiting = ", ".join(f"{count} {name}" for name, count in answer["queued"].items() if count)
        free, whole = answer["free"], answer["capacity"]
        out.print(
            f"{len(answer['agents'])} at work, {waiting or 'none'} waiting; free: {free['memory_mib']} of "
            f"{whole['memory_mib']} MiB, {free['cpu_milli']} of {whole['cpu_milli']} milli-cores"
        )


@app.command("show")
def show_agent(agent: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Show an agent at work: its run, what it has claimed, and who keeps it from going on."""
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
        claim = answer["claim"]
        if claim is None:
            out.print("  it has claimed nothing yet")
            return
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


@app.command("suspend")
def suspend(agent: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Suspend an agent before its next effect; it gives back what it holds."""
    with errors_to_exit(as_json=as_json):
        _told(
            _ask(config, "agents.suspend", {"agent": agent}), f"{agent} stops before its next effect", as_json=as_json
        )


@app.command("resume")
def resume(agent: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Let an agent that was suspended so go on, in its turn."""
    with errors_to_exit(as_json=as_json):
        _told(_ask(config, "agents.resume", {"agent": agent}), f"{agent} goes on in its turn", as_json=as_json)


@app.command("stop")
def stop(
    agent: Annotated[str | None, typer.Argument(help="The agent.")] = None,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Stop every agent at work.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Stop an agent, or all of them, where they are; what they had in flight is settled, and the runs have failed."""
    with errors_to_exit(as_json=as_json):
        if (agent is None) is not everybody:
            msg = "name an agent, or give `--all`"
            raise InputError(msg, code="input.usage")
        arguments: dict[str, JsonValue] = {"all": True} if everybody else {"agent": agent}
        answer: Any = _ask(config, "agents.stop", arguments)
        _told(answer, f"stopped {len(answer['runs'])}", as_json=as_json)


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
        raise StoreUnavailable(msg, code="unavailable.control", hint="`symbi runs list` shows what was")
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
        out.print(f"  {escape(printable(run.file))}, {run.started_at[:19]}Z to {(run.finished_at or 'now')[:19]}")
        if run.compacted:
            out.print("  compacted: `symbi audit show --run` tells what it did")
        for effect in effects:
            what = printable(f"{effect.action} on {effect.resource}")
            out.print(f"  {effect.position:>4} {effect.state.value:<10} {escape(what)}")


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

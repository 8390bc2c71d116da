"""`symbi run`: one agent file, from its text to its end on the trail; `--resume` goes on after an interruption."""

import json
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import typer
from anyio.abc import TaskStatus
from rich.markup import escape

from symbi.agent.journal import RunState, absolute
from symbi.agent.run import RunOutcome
from symbi.agent.task import Task, parse_grant, parse_labels, parse_subjects
from symbi.agent.texts import read_texts, split_pairs
from symbi.api.control import ControlSocket
from symbi.cli.options import Config, Json
from symbi.cli.output import (
    err,
    error_json,
    errors_to_exit,
    exit_code,
    print_json,
    print_text,
    show_error,
)
from symbi.cli.unread import patient_stderr
from symbi.cli.waiting import wait_s
from symbi.config import Settings, find_config, load_settings, read_budget
from symbi.dsl.spec import AgentSpec
from symbi.errors import ApprovalPending, InputError, SymbiError
from symbi.guard.budget import Allowance
from symbi.guard.spending import UNBOUNDED, Budget
from symbi.policy.context import label_context
from symbi.policy.flow import MORE_SUBJECTS
from symbi.runtime.runtime import Runtime
from symbi.tools.text import printable
from symbi.types import AgentId, JsonValue, RunId
from symbi.wiring import compile_agents, open_runtime, read_text, start_logging

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What the command line says of a new run.

    Attributes:
        inputs: NAME=VALUE for each input.
        labels: NAME=LABEL for inputs that are not what the user wrote.
        grant: The file that says what the task calls for.
        subjects: The people whom the inputs are about.
        budget: The most that the run may spend.
    """

    inputs: Sequence[str] = ()
    labels: Sequence[str] = ()
    grant: Path | None = None
    subjects: Sequence[str] = ()
    budget: Budget = UNBOUNDED

    @property
    def everybody(self) -> tuple[str, ...]:
        """The people whom the inputs are about; a crowd where somebody is meant and it cannot be read who."""
        try:
            return Task(None, parse_labels(self.labels), parse_subjects(self.subjects)).everybody
        except InputError:  # which is told when the task is made
            meant = self.subjects or any("subject:" in label for label in self.labels)
            return (MORE_SUBJECTS,) if meant else ()

    def task(self) -> Task:
        """Labels and grant as they are kept with the run.

        Raises:
            InputError: A label is malformed, or the file cannot be read or is no grant.
        """
        grant = None if self.grant is None else parse_grant(str(self.grant), read_text(self.grant))
        return Task(grant, parse_labels(self.labels), parse_subjects(self.subjects))


def run(  # noqa: PLR0913 - the options of the command
    file: Annotated[Path | None, typer.Argument(help="Agent file.")] = None,
    *,
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="NAME=VALUE, once for each input.")] = None,
    agent: Annotated[str | None, typer.Option(help="Which agent, where the file has several.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted or held.")] = False,
    run_id: Annotated[
        str | None, typer.Option("--run", help="Which run to resume; the newest open one if not given.")
    ] = None,
    grant: Annotated[
        Path | None,
        typer.Option(help="What the task calls for, for policies to hold tool calls against: a JSON or TOML file."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label", help="NAME=LABEL: what an input is, e.g. `untrusted`, `confidential:pii`, `subject:WHO`."
        ),
    ] = None,
    subjects: Annotated[
        list[str] | None,
        typer.Option("--subject", metavar="WHO", help="Whom the inputs are about: what is kept of them can be erased."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="NAME=AMOUNT,…", help="The most that the run may spend: calls=10,cpu_s=2.")
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="[TIME]",
            help="Wait for people where an action is held: for a time such as 30m, or until decided.",
        ),
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Run an agent. Exit codes: 0 done, 1 failed, 2 wrong input, 3 denied, 4 not verified, 5 unavailable, 6 in doubt, 7 held."""
    with patient_stderr(), errors_to_exit(as_json=as_json):
        if (file is None) is not resume and not (file and resume):
            msg = "give an agent file, or `--resume`"
            raise InputError(msg, code="input.usage")
        if resume and (grant is not None or labels or subjects or budget):
            msg = "`--grant`, `--label`, `--subject` and `--budget` are for a new run"
            raise InputError(msg, code="input.usage", hint="a resumed run keeps those that it was started with")
        told = Told(inputs or (), labels or (), grant, subjects or (), read_budget("--budget", budget))
        settings = settings_for(file, config)
        start_logging(settings)
        try:
            wanted = RunId(run_id or "") if resume else None
            work = partial(_main, settings, file, told, agent, wanted, wait_s(wait))
            outcome = run_to_end(work, settings)
        except KeyboardInterrupt:
            err.print("go on with [bold]symbi run --resume[/]")
            raise
        report(outcome, as_json=as_json)


def settings_for(file: Path | None, config: Path | None) -> Settings:
    """Settings as named, or else those found from the agent file's folder upwards, or from here."""
    if config is None and file is not None:
        config = find_config(Path.cwd()) or find_config(file.resolve().parent)
    return load_settings(config)


async def _main(
    settings: Settings,
    file: Path | None,
    told: Told,
    agent: str | None,
    resume: RunId | None,
    hold_s: float | None,
) -> RunOutcome:
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            open_runtime(settings, emit=show_line, hold_s=hold_s, held=partial(show_held, waits=hold_s != 0))
        )
        announce(runtime)
        if settings.security.audit_enabled:
            await stack.enter_async_context(ControlSocket(runtime, settings.runtime.data_dir))
        if resume is not None:
            return await resume_run(runtime, resume or None, file)
        assert file is not None
        return await start_run(runtime, file, told, agent)


def run_to_end(work: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """Do some work on an event loop of its own, until it ends or is interrupted.

    Raises:
        KeyboardInterrupt: It was interrupted.
    """
    return anyio.run(until_terminated, work, settings.runtime.shutdown_grace_s)


def run_until_stopped(
    work: Callable[[Callable[[Callable[[], None]], None]], Awaitable[None]], settings: Settings
) -> None:
    """Do some work that ends by itself once it is told to stop.

    Args:
        work: Is given a function that takes what tells it to stop.
        settings: How long it may take then.

    Raises:
        KeyboardInterrupt: It did not end in that time, or was interrupted twice.
    """
    stops: list[Callable[[], None]] = []
    was_told = False

    def told() -> None:
        nonlocal was_told
        was_told = True
        for stop in stops:
            stop()

    def on_stop(stop: Callable[[], None]) -> None:
        stops.append(stop)
        if was_told:  # while it was being opened
            stop()

    anyio.run(partial(until_terminated, stop=told), partial(work, on_stop), settings.runtime.shutdown_grace_s)


async def until_terminated(
    work: Callable[[], Awaitable[T]], grace_s: float, *, stop: Callable[[], None] | None = None
) -> T:
    """Do some work. SIGTERM lets it end within the grace, then cancels it; SIGINT cancels it at once.

    Where it can be told to `stop`, both tell it that, and it has the grace; a second SIGINT cancels it at once.

    What is in flight is settled either way, and the run can be resumed. Both cancel a scope: the loop's own answer to
    SIGINT would break off also what is shielded, such as the wait for a commit. A second SIGINT does.

    Raises:
        KeyboardInterrupt: It was terminated.
    """
    results: list[T] = []
    errors: list[SymbiError] = []
    async with anyio.create_task_group() as tasks:

        async def stop_on_signal(*, task_status: TaskStatus[None]) -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                task_status.started()
                told = stop is None
                async for number in signals:
                    now = told and number == signal.SIGINT
                    end_s = anyio.current_time() + (0 if now else grace_s)
                    tasks.cancel_scope.deadline = min(tasks.cancel_scope.deadline, end_s)  # asked again is no respite
                    if now:
                        return
                    if stop is not None:
                        told = True
                        stop()

        await tasks.start(stop_on_signal)
        try:
            results.append(await work())
        except SymbiError as error:
            errors.append(error)
        tasks.cancel_scope.cancel("done")
    if errors:
        raise errors[0]
    if not results:
        raise KeyboardInterrupt
    return results[0]


def show_line(agent: AgentId, text: str) -> None:
    """What a run logs, on standard error."""
    for line in text.splitlines() or [""]:
        err.print(f"[cyan]{escape(agent)}[/] [dim]|[/] {escape(printable(line))}")


def show_held(pending: ApprovalPending, *, waits: bool) -> None:
    """What waits for people, and how it is released."""
    approval_id = escape(str(pending.fields["approval"]))
    err.print(f"[bold yellow]held:[/] {escape(printable(pending.message))}")
    err.print(
        f"  until {escape(str(pending.fields['expires_at'])[:19])}Z; see [bold]symbi approvals show {approval_id}[/]"
    )
    err.print(f"  [bold]symbi approvals approve {approval_id}[/] or [bold]deny[/]", end=" ")
    err.print("while this run waits" if waits else "and then [bold]symbi run --resume[/]")


def announce(runtime: Runtime) -> None:
    """The start-up line: what is enforced; then what is unsafe or in doubt."""
    err.print(f"[dim]{escape(runtime.describe())}[/]")
    for warning in runtime.warnings:
        err.print(f"[bold yellow]warning:[/] {escape(warning)}")
    for record in runtime.report.in_doubt:
        whose = f" of run {record.run_id}" if record.run_id else ""
        facts = f"{record.recovery.value}, effect {record.effect_id}"
        err.print(f"[bold yellow]in doubt:[/] {escape(record.resource)}{whose} ({facts})")


async def start_run(runtime: Runtime, file: Path, told: Told, agent: str | None) -> RunOutcome:
    """Compile a file and run one agent of it on what the command line says of the run."""
    try:
        compiled = compile_agents(file)
        spec = _choose(compiled.agents, agent, file)
        values = parse_inputs(told.inputs, spec)
        task = told.task()
    except InputError as error:
        await runtime.refuse(file, error, told.everybody)
        raise
    return await runtime.run(compiled, spec, values, task, allowance=Allowance(told.budget))


async def resume_run(runtime: Runtime, run_id: RunId | None, file: Path | None) -> RunOutcome:
    """Go on with a run: the one named, or the newest that is open (of a file)."""
    record = await runtime.find_open_run(run_id, absolute(str(file)) if file else None)
    path = Path(record.file)
    compiled = compile_agents(path)
    spec = _choose(compiled.agents, record.declared, path)
    return await runtime.resume(compiled, spec, record)


def _choose(agents: Sequence[AgentSpec], name: str | None, file: Path) -> AgentSpec:
    names = ", ".join(f"`{spec.id}`" for spec in agents)
    if not agents:
        msg = f"`{file}` has no agent"
        raise InputError(msg, code="input.agent")
    if name is None and len(agents) > 1:
        msg = f"`{file}` has several agents: {names}"
        raise InputError(msg, code="input.agent", hint="name one with `--agent`")
    chosen = next((spec for spec in agents if name in {None, spec.id}), None)
    if chosen is None:
        msg = f"`{file}` has no agent `{name}`, only {names}"
        raise InputError(msg, code="input.agent")
    return chosen


def parse_inputs(inputs: Sequence[str], spec: AgentSpec) -> dict[str, JsonValue]:
    """NAME=VALUE pairs by the types of the agent's parameters; files are named as seen from the working folder.

    Raises:
        InputError: A pair is malformed or given twice.
    """
    return read_texts(split_pairs(inputs), spec, Path.cwd())


def report(outcome: RunOutcome, *, as_json: bool) -> None:
    """Print how a run ended, and leave with its exit code if it did not finish."""
    if as_json:
        print_json(
            {
                "run_id": outcome.run_id,
                "state": outcome.state.value,
                "output": outcome.output,
                "label": None if outcome.label is None else label_context(outcome.label),
                "effects": outcome.effects,
                "replayed": outcome.replayed,
                "error": None if outcome.error is None else error_json(outcome.error),
            }
        )
    elif outcome.error is None:
        text = (
            outcome.output
            if isinstance(outcome.output, str)
            else json.dumps(outcome.output, ensure_ascii=False, indent=2)
        )
        print_text(text)
    if outcome.error is not None:
        if not as_json:
            show_error(outcome.error)
            err.print(
                f"[dim]run {outcome.run_id} is {outcome.state.value}; `symbi audit show --run {outcome.run_id}` tells more[/]"
            )
            if outcome.state is RunState.HELD:
                err.print(
                    f"once that is changed, [bold]symbi run --resume --run {outcome.run_id}[/] goes on from there"
                )
        raise typer.Exit(exit_code(outcome.error))

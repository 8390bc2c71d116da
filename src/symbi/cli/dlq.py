"""`symbi dlq`: what was given up in a data folder; to look at it, to begin it anew, and to let it go."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.agent.journal import RunState
from symbi.agent.run import RunOutcome
from symbi.api.caller import Caller, operate
from symbi.api.client import ask_owner, connect_owner
from symbi.api.dlq import DLQ_TIMEOUT_S, OPERATIONS, unknown_message
from symbi.bus.outbox import DeadMessage, dead_message
from symbi.cli.options import Config, Json
from symbi.cli.output import err, error_json, errors_to_exit, exit_code, out, print_json, show_error
from symbi.cli.owner import ask_or_own
from symbi.cli.run import announce, resume_run, run_to_end, show_held, show_line
from symbi.clock import rfc3339
from symbi.config import Settings, load_settings
from symbi.errors import ConfigError, DecryptionFailed, InputError, SymbiError, did_you_mean
from symbi.guard.confidential import lost_text
from symbi.guard.outcome import decode_error, encode_result
from symbi.runtime.letters import DeadLetter, LetterState, Wanted, opened_letter, read_json, unknown
from symbi.runtime.sealed_mail import SealedMail
from symbi.tools.text import printable
from symbi.types import AgentId, JsonValue, RunId
from symbi.wiring import TrailReader, folder_owner, open_reader, open_runtime, reading_mails, start_logging

app = typer.Typer(help="See what was given up, begin it anew, or let it go.", no_args_is_help=True)
bus_app = typer.Typer(help="List, show, replay or drop messages that the bus gave up.", no_args_is_help=True)

Letter = Annotated[str | None, typer.Argument(help="The run that was given up; `symbi dlq list` shows them.")]
Message = Annotated[str | None, typer.Argument(help="The message that was given up; `symbi bus dlq list` shows them.")]
AllTo = Annotated[
    str | None, typer.Option("--all-of", metavar="AGENT", help="Every one to this agent and its instances.")
]
BUS: Final[dict[str, JsonValue]] = {"kind": "bus"}
AllOf = Annotated[
    str | None, typer.Option("--all-of", metavar="AGENT", help="Every open one of this agent and its instances.")
]


@app.command("list")
def list_letters(
    *,
    agent: Annotated[str | None, typer.Option(help="Only of this agent; of all its instances, if it has some.")] = None,
    state: Annotated[
        str, typer.Option(help="`open`, `replayed` or `dropped`; `all` for whatever became of them.")
    ] = "open",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, newest first.")] = 100,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List what was given up, newest first."""
    with errors_to_exit(as_json=as_json):
        states = [*(one.value for one in LetterState), "all"]
        if state not in states:
            msg = f"no dead letter is ever `{state}`"
            raise InputError(msg, code="input.value", hint=did_you_mean(state, states) or ", ".join(states))
        settings = load_settings(config)
        wanted = Wanted(
            None if agent is None else AgentId(agent), None if state == "all" else LetterState(state), limit
        )
        with open_reader(settings) as reader:
            mails = reading_mails(settings, reader)
            rows = [_letter_json(letter, mails, whole=False) for letter in reader.letters(wanted)]
            if state in {"open", "all"}:
                rows += [_message_json(one) for one in reader.dead_sent(agent or "", limit)]
        _print_rows(rows, limit, state, as_json=as_json)


@bus_app.command("list")
def list_messages(
    *,
    agent: Annotated[
        str | None, typer.Option(help="Only those to this agent; to all its instances, if it has some.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, newest first.")] = 100,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List messages that the bus gave up, newest first."""
    with errors_to_exit(as_json=as_json), open_reader(load_settings(config)) as reader:
        rows = [_message_json(one) for one in reader.dead_sent(agent or "", limit)]
        _print_rows(rows, limit, "open", as_json=as_json)


def _print_rows(rows: list[dict[str, JsonValue]], limit: int, state: str, *, as_json: bool) -> None:
    rows = sorted(rows, key=lambda row: str(row["at"]), reverse=True)[:limit]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        out.print(
            f"{row['letter']} [bold]{row['state']:<8}[/] {escape(printable(str(row['agent'])))} {row['kind']} "
            f"[dim]{str(row['at'])[:19]}Z, {_times(row['attempts'])}[/] {escape(str(row['code']))}"
        )
    if not rows:
        out.print("no dead letters" if state == "all" else f"no {state} dead letters")


@app.command("show")
def show_letter(
    letter: Annotated[str, typer.Argument(help="The run that was given up.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show one: why it was given up, and what it was to do."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        with open_reader(settings) as reader:
            found = reader.get_letter(RunId(letter))
            if found is None:
                if _shown_message(reader, letter, as_json=as_json):
                    return
                raise unknown(RunId(letter), [one.run_id for one in reader.letters(Wanted())])
            row = _letter_json(found, reading_mails(settings, reader), whole=True)
        if as_json:
            print_json(row)
            return
        _print_letter(row)


@bus_app.command("show")
def show_message(
    letter: Annotated[str, typer.Argument(help="The message that was given up.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show one: from whom, to whom, and why it was given up."""
    with errors_to_exit(as_json=as_json), open_reader(load_settings(config)) as reader:
        if not _shown_message(reader, letter, as_json=as_json):
            raise unknown_message(letter)


def _shown_message(reader: TrailReader, letter: str, *, as_json: bool) -> bool:
    """Show a dead message of the bus, if it is one."""
    message = dead_message(reader.find_sent, letter)
    if message is None:
        return False
    row = _message_json(message)
    print_json(row) if as_json else out.print(
        f"message {row['letter']} of [bold]{escape(printable(message.sender))}[/] to "
        f"[bold]{escape(printable(message.recipient))}[/], given up at {str(row['at'])[:19]}Z after "
        f"{_times(message.attempts)}: {escape(message.code)}; it opens for its recipient alone"
    )
    return True


@app.command("replay")
def replay(letter: Letter = None, *, all_of: AllOf = None, as_json: Json = False, config: Config = None) -> None:
    """Begin one anew, with the same inputs, labels and grant, as a new run; a runtime that is alive carries it out.

    Where none is, it is carried out here to its end, with the exit codes of `symbi run`.
    """
    _replay(letter, all_of, {}, as_json=as_json, config=config)


@bus_app.command("replay")
def replay_message(
    letter: Message = None, *, all_of: AllTo = None, as_json: Json = False, config: Config = None
) -> None:
    """Let one wait for its recipient again, as if it had never been tried."""
    _replay(letter, all_of, BUS, as_json=as_json, config=config)


def _replay(
    letter: str | None, all_of: str | None, kind: dict[str, JsonValue], *, as_json: bool, config: Path | None
) -> None:
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        arguments = _named(letter, all_of) | kind
        connection = connect_owner(settings.runtime.data_dir)
        outcomes: list[RunOutcome] = []
        if connection is not None:
            answer: Any = ask_owner(connection, "dlq.replay", arguments, timeout_s=DLQ_TIMEOUT_S)
        else:
            answer, outcomes = run_to_end(partial(_replay_here, settings, arguments), settings)
        ended = {outcome.run_id: outcome for outcome in outcomes}
        if as_json:
            for row in answer["replayed"]:
                if (outcome := ended.get(row["run"])) is not None:
                    failed = None if outcome.error is None else error_json(outcome.error)
                    row |= {"state": outcome.state.value, "output": outcome.output, "error": failed}
            print_json(answer)
        else:
            for row in answer["replayed"]:
                out.print(f"{row['letter']} is {row['as']} {row['run']} now: {_how(row, ended.get(row['run']))}")
        errors = [decode_error(encode_result(row["error"])) for row in answer["refused"]]
        if not as_json:
            for row, error in zip(answer["refused"], errors, strict=True):
                err.print(f"{row['letter']} stays open:")
                show_error(error)
        errors += [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            raise typer.Exit(exit_code(errors[0]))


@app.command("drop")
def drop(
    letter: Letter = None,
    *,
    all_of: AllOf = None,
    reason: Annotated[str, typer.Option(help="Why; it stands on the trail with who said so.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Let one go for good: its payload is removed, and the trail says who did it and why."""
    _drop(letter, all_of, reason, {}, as_json=as_json, config=config)


@bus_app.command("drop")
def drop_message(
    letter: Message = None,
    *,
    all_of: AllTo = None,
    reason: Annotated[str, typer.Option(help="Why; it stands on the trail with who said so.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Let one go for good: its bytes are removed, and the trail says who did it and why."""
    _drop(letter, all_of, reason, BUS, as_json=as_json, config=config)


def _drop(
    letter: str | None,
    all_of: str | None,
    reason: str,
    kind: dict[str, JsonValue],
    *,
    as_json: bool,
    config: Path | None,
) -> None:
    with errors_to_exit(as_json=as_json):
        arguments = _named(letter, all_of) | kind
        if not reason:
            msg = "say why with `--reason`"
            raise InputError(msg, code="input.usage")
        settings = load_settings(config)
        start_logging(settings)
        answer: Any = ask_or_own(settings, "dlq.drop", {**arguments, "reason": reason})
        if as_json:
            print_json(answer)
        else:
            out.print(f"dropped {len(answer['dropped'])}")


async def _replay_here(settings: Settings, arguments: dict[str, JsonValue]) -> tuple[Any, list[RunOutcome]]:
    """Begin letters as the owner of the data folder, and take each run that one became to its end."""
    outcomes: list[RunOutcome] = []
    async with open_runtime(settings, emit=show_line, held=partial(show_held, waits=False)) as runtime:
        announce(runtime)
        caller = Caller(os.geteuid(), folder_owner=os.geteuid() == folder_owner(settings))
        answer: Any = await operate(runtime, OPERATIONS, caller, "dlq.replay", arguments)
        for row in answer["replayed"]:
            if row["as"] == "message":
                continue  # its agent carries it out once somebody lets it: `symbi up`
            row["carried_out"] = True
            try:
                outcomes.append(await resume_run(runtime, RunId(row["run"]), None))
            except SymbiError as error:
                rooms, run_id = runtime.rooms, RunId(row["run"])
                record = await rooms.world.log.read(partial(rooms.runs.get_run, run_id))
                outcomes.append(RunOutcome(run_id, RunState.RUNNING if record is None else record.state, error=error))
    return answer, outcomes


def _how(row: dict[str, Any], outcome: RunOutcome | None) -> str:
    if outcome is not None:
        said = "" if outcome.error is None else f": {escape(printable(str(outcome.error)))}"
        return f"[bold]{outcome.state.value}[/]{said}"
    if row["as"] == "message":
        return "its agent has it in its mailbox"
    if row["carried_out"]:
        return "it is carried out in its turn"
    return f"go on with [bold]symbi run --resume --run {row['run']}[/]"


def _named(letter: str | None, all_of: str | None) -> dict[str, JsonValue]:
    if (letter is None) is (all_of is None):
        msg = "name a dead letter, or give `--all-of AGENT`"
        raise InputError(msg, code="input.usage")
    return {"letter": letter} if letter is not None else {"agent": all_of}


def _letter_json(letter: DeadLetter, mails: SealedMail, *, whole: bool) -> dict[str, JsonValue]:
    """A letter for machines; its payload as far as it opens, where that is asked for."""
    row: dict[str, JsonValue] = {
        "letter": letter.run_id,
        "kind": letter.kind.value,
        "agent": letter.agent_id,
        "file": letter.file,
        "code": letter.code,
        "attempts": letter.attempts,
        "at": letter.at,
        "state": letter.state.value,
        "became": letter.became or None,
        "closed_at": letter.closed_at,
    }
    if not whole:
        return row
    lost: JsonValue = None
    try:
        letter = opened_letter(letter, mails)
    except (DecryptionFailed, ConfigError) as error:
        lost = lost_text(error)
    except InputError as error:
        lost = error.message
    columns = {"error": letter.error, "inputs": letter.inputs, "labels": letter.labels, "grant": letter.grant}
    columns["closed"] = letter.note
    for name, data in columns.items():
        row[name] = None if data is None else read_json(data) if lost is None else lost
    return row


def _message_json(one: DeadMessage) -> dict[str, JsonValue]:
    """A dead message of the bus, as a letter."""
    return {
        "letter": one.message_id,
        "kind": "bus",
        "agent": one.recipient,
        "sender": one.sender,
        "code": one.code,
        "attempts": one.attempts,
        "at": rfc3339(one.changed_ns),
        "state": "open",
    }


def _print_letter(row: dict[str, Any]) -> None:
    became = f" as run {row['became']}" if row["became"] else ""
    out.print(
        f"{row['kind']} {row['letter']} of [bold]{escape(printable(row['agent']))}[/] is [bold]{row['state']}[/]{became}"
    )
    out.print(f"  {escape(printable(row['file']))}, given up at {row['at'][:19]}Z after {_times(row['attempts'])}")
    error = row["error"]
    why = error.get("message", "") if isinstance(error, dict) else error or ""
    out.print(f"  {escape(printable(row['code'] + (f': {why}' if why else '')))}")
    for name in ("inputs", "labels", "grant"):
        if row[name] is not None:
            out.print(f"  {name}: {escape(printable(encode_result(row[name]).decode()))}")
    closed = row["closed"]
    if isinstance(closed, dict):
        said = f": {closed['reason']}" if "reason" in closed else ""
        out.print(f"  {row['state']} by {escape(printable(str(closed.get('by'))))}{escape(printable(said))}")
    if row["state"] == "open":
        out.print("  [bold]symbi dlq replay[/] begins it anew, [bold]symbi dlq drop[/] lets it go")


def _times(attempts: JsonValue) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"

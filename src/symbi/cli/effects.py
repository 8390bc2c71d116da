"""`symbi effects`: what was done, what is in doubt, and how a person settles it."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape

from symbi.api.effects import effect_json
from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.config import load_settings
from symbi.errors import ConfigError, DecryptionFailed, InputError, StoreUnavailable
from symbi.guard.confidential import lost_text, opened_effect
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.records import never_began
from symbi.guard.vault import Vault
from symbi.runtime.doubt import in_doubt
from symbi.tools.text import printable
from symbi.types import EffectId, JsonValue
from symbi.wiring import open_reader, reading_vault

app = typer.Typer(help="See effects, and settle those in doubt.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The effect; `symbi effects list` shows them.")]


@app.command("list")
def list_effects(
    *,
    doubtful: Annotated[bool, typer.Option("--in-doubt", help="Only those of which nobody knows.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, newest first.")] = 100,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List effects, newest first; or those in doubt, oldest first."""
    with errors_to_exit(as_json=as_json):
        with open_reader(load_settings(config)) as reader:
            found = in_doubt(reader.effects_in(EffectState.UNKNOWN))[:limit] if doubtful else reader.effects(limit)
        if as_json:
            print_json([_facts(record) for record in found])
            return
        for record in found:
            out.print(_line(record))
        if not found:
            out.print("nothing is in doubt" if doubtful else "no effects")


@app.command("show")
def show(effect: Id, *, as_json: Json = False, config: Config = None) -> None:
    """Show an effect: what was asked, how it was decided, how it stands, and what came of it."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        with open_reader(settings) as reader:
            record = reader.get_effect(EffectId(effect))
            if record is None:
                msg = f"there is no effect `{effect[:64]}`"
                raise InputError(msg, code="input.effect", hint="`symbi effects list` shows them")
            shown = _facts(record) | _values(record, reading_vault(settings, reader))
        if as_json:
            print_json(shown)
            return
        out.print(_line(record))
        out.print(f"  of {escape(printable(record.agent_id))}, label {record.label}, owner {record.epoch}")
        out.print(f"  policy version {record.policy_version[:12]}, arguments {record.arguments_digest[:32]}")
        for name in ("result", "error"):
            if shown[name] is not None:
                out.print(f"  {name}: {escape(printable(json.dumps(shown[name], ensure_ascii=False)))}")
        if in_doubt([record]):
            out.print(
                f"  settle it: [bold]symbi effects settle {record.effect_id} --happened[/] or [bold]--not-happened[/]"
            )


@app.command("settle")
def settle(
    effect: Id,
    *,
    happened: Annotated[
        bool | None, typer.Option("--happened/--not-happened", help="What became of it.", show_default=False)
    ] = None,
    result: Annotated[str | None, typer.Option(help="What came of it, as JSON; the agent is given this.")] = None,
    reason: Annotated[str, typer.Option(help="How you know; it stands in the trail.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say what became of an effect in doubt; the run that waits for it can then go on."""
    with errors_to_exit(as_json=as_json):
        if happened is None:
            msg = "say what became of it"
            raise InputError(msg, code="input.usage", hint="give `--happened` or `--not-happened`")
        arguments: dict[str, JsonValue] = {"id": effect, "happened": happened, "reason": reason}
        if result is not None:
            arguments["result"] = _parsed(result)
        answer: Any = ask_or_own(load_settings(config), "effects.settle", arguments)
        if as_json:
            print_json(answer)
            return
        out.print(f"{answer['effect']} is settled: it {'happened' if happened else 'did not happen'}")
        if answer["run"]:
            out.print("  its run goes on by itself where `symbi up` has it; elsewhere by")
            out.print(f"  [bold]symbi run --resume --run {answer['run']}[/]")


def _parsed(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"`--result` is no JSON: {error}"
        raise InputError(msg, code="input.value", hint="a text stands in quotes: '\"booked\"'") from error
    return value


def _facts(record: EffectRecord) -> dict[str, JsonValue]:
    facts = effect_json(record)
    if not in_doubt([record]):
        facts["waits_for"] = None
    return facts


def _line(record: EffectRecord) -> str:
    state = "not happened" if never_began(record) and record.state is not EffectState.FAILED else record.state.value
    what = escape(printable(f"{record.action} on {record.resource}"))
    where = f"run {record.run_id} at {record.position}" if record.run_id else "of the runtime"
    waits = f", waits for a {effect_json(record)['waits_for']}" if in_doubt([record]) else ""
    return f"{record.effect_id} [bold]{state}[/] {what} [dim]{where}, {record.recovery.value}{waits}[/]"


def _values(record: EffectRecord, vault: Vault) -> dict[str, JsonValue]:
    """Result and error of an effect, as far as they open."""
    try:
        opened = opened_effect(record, vault)
        return {
            "result": None if opened.result is None else json.loads(opened.result),
            "error": None if opened.error is None else json.loads(opened.error),
            "decision": json.loads(record.decision),
        }
    except (DecryptionFailed, ConfigError) as lost:
        return {"result": lost_text(lost), "error": None, "decision": json.loads(record.decision)}
    except ValueError as error:
        msg = f"effect `{record.effect_id}` cannot be read: the store was altered"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error


def compact(
    *,
    days: Annotated[
        int | None, typer.Option(min=0, max=36_500, help="Age; `runtime.journal_retention_days` if not given.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Remove effects, requests and values of runs that ended long ago; the trail goes on to tell of them."""
    with errors_to_exit(as_json=as_json):
        arguments: dict[str, JsonValue] = {} if days is None else {"days": days}
        answer: Any = ask_or_own(load_settings(config), "runs.compact", arguments)
        if as_json:
            print_json(answer)
            return
        what = f"{answer['effects']} effects of {answer['runs']} runs and of the runtime, with {answer['requests']} requests"
        out.print(f"removed {what}, from before {answer['before'][:19]}Z")

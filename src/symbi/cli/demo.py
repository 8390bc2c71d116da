"""`symbi demo`: the log-triage example in a fresh folder, from its run to the verdict on its trail."""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.rule import Rule

import symbi
from symbi.agent.run import RunOutcome
from symbi.audit.event import parse_event
from symbi.cli.audit_lines import decisions_table
from symbi.cli.audit_verify import show_report, verify_store
from symbi.cli.output import err, errors_to_exit, out, print_text
from symbi.cli.run import Told, announce, report, run_to_end, show_line, start_run
from symbi.config import CONFIG_NAME, Settings, load_settings
from symbi.errors import InputError, InternalError
from symbi.runtime.runtime import Runtime
from symbi.types import OPERATOR_AGENT, Principal
from symbi.wiring import open_reader, open_runtime, start_logging

EXAMPLE: Final = "log-triage"
RUNBOOKS: Final = "runbooks"
ASKED: Final = '{"to": "archive@collector.example", "subject": "s", "body": "b"}'
COMMANDS: Final = (
    "symbi audit show --type decision.deny",
    f"symbi policy explain --agent log_triage --tool notify.send --arguments '{ASKED}' --untrusted to",
    "symbi run triage.symbi --input log=/var/log/nginx/access.log",
    "symbi audit export ../evidence && symbi audit verify --export ../evidence",
    "symbi compliance report hipaa --out ../hipaa.html --out ../hipaa.json && symbi compliance verify ../hipaa.json",
)
"""What the demo tells people to try; a test runs them."""


def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to copy the example; a fresh folder if not given.")
    ] = None,
) -> None:
    """Run the log-triage example: a report, one refused action, and a trail that verifies."""
    with errors_to_exit():
        place = copy_example(folder)
        settings = load_settings(place / CONFIG_NAME, overrides={"runtime.log_level": "warning"})
        start_logging(settings)
        outcome = run_to_end(partial(_run, settings, place), settings)
        out.print(Rule("the agent's report"))
        print_text(str(outcome.output).strip())
        if outcome.error is not None:
            report(outcome, as_json=False)
        out.print(Rule())
        with open_reader(settings) as reader:
            events = [parse_event(stored.record) for stored in reader.read(1)]
            out.print(decisions_table(events))
            out.print()
            show_report(verify_store(settings), as_json=False)
        _next(place)


async def _run(settings: Settings, place: Path) -> RunOutcome:
    async with open_runtime(settings, emit=show_line) as runtime:
        announce(runtime)
        await _read_runbooks(runtime, place / "runbooks")
        return await start_run(runtime, place / "triage.symbi", Told([f"log={place / 'logs' / 'access.log'}"]), None)


async def _read_runbooks(runtime: Runtime, folder: Path) -> None:
    """Have the pages read that the agent looks into: what `symbi kb add runbooks --collection runbooks` does."""
    door = runtime.rooms.knowledge
    assert door is not None, "wiring makes one"
    knowledge, after, over = await door.opened(), None, False
    while not over:
        _, step = await knowledge.add(Principal(OPERATOR_AGENT), RUNBOOKS, folder, after=after)
        after = step.next
        over = after is None


def copy_example(folder: Path | None) -> Path:
    """Copy the example to a folder that is not there yet.

    Raises:
        InputError: It is there, or cannot be made.
        InternalError: The installation has no examples.
    """
    source = next((p / EXAMPLE for p in _homes() if (p / EXAMPLE / CONFIG_NAME).is_file()), None)
    if source is None:
        msg = "this installation has no examples"
        raise InternalError(msg, code="internal.examples")
    place = folder if folder is not None else Path(tempfile.mkdtemp(prefix="symbi-demo-")) / EXAMPLE
    try:
        place.mkdir(parents=True)
    except FileExistsError as error:
        msg = f"`{place}` exists already"
        raise InputError(msg, code="input.exists", hint="name a folder that does not exist yet") from error
    except OSError as error:
        msg = f"cannot make `{place}`: {error.strerror}"
        raise InputError(msg, code="input.unwritable") from error
    ignored = shutil.ignore_patterns(".symbi", "state", "reports", "__pycache__")
    try:
        shutil.copytree(source, place, ignore=ignored, dirs_exist_ok=True)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        # Of a tree of failures, the first tells enough.
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
        msg = f"cannot copy the example to `{place}`: {reason}"
        raise InputError(msg, code="input.unwritable") from error
    return place.absolute()


def _homes() -> tuple[Path, ...]:
    package = Path(symbi.__file__).parent
    return package / "examples", package.parents[1] / "examples"


def _next(place: Path) -> None:
    err.print()
    out.print("[bold]Try next[/], in the folder of the example:")
    out.print(f"  cd {escape(str(place))}")
    for command in COMMANDS:
        out.print(f"  {escape(command)}")

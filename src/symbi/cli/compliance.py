"""`symbi compliance`: reports on what the trail shows for the controls of a framework."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.api.client import ask_owner, connect_owner
from symbi.api.control import OPERATIONS, Caller, operate
from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, out, print_json
from symbi.cli.run import run_to_end
from symbi.compliance.check import CheckedReport, check_report
from symbi.compliance.framework import Framework
from symbi.compliance.library import NAMES, framework_named, template
from symbi.compliance.parse import parse_framework
from symbi.compliance.period import period_of
from symbi.compliance.recorded import OPERATION, facts_of_report
from symbi.compliance.render import RENDERERS, Format
from symbi.compliance.report import make_report, verdict
from symbi.config import Settings, load_settings
from symbi.errors import InputError, PolicyDenied
from symbi.tools.text import printable
from symbi.types import JsonValue
from symbi.wiring import folder_owner, open_runtime, read_text, start_logging, verified_trail

app = typer.Typer(help="Report on what the trail shows for the controls of a framework.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="FRAMEWORK", help="gdpr, hipaa or sox, or a file of your own (.toml).")]
MAX_REPORT_BYTES: Final = 67_108_864  # of a report that is checked
NEW_FILE: Final = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
)  # nothing that lies there, nor a link, is written to
SUFFIX: Final = ".toml"


@app.command("report")
def report(
    name: Name,
    *,
    since: Annotated[str | None, typer.Option("--from", help="First day (UTC) or time; else the whole trail.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day, which is in it, or the time it ends.")] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="For standard output, and files whose ending does not tell.")
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--out", help="Write it there (.html, .json, .md); can be given again.")
    ] = None,
    config: Config = None,
) -> None:
    """Report per control: met, not met, not applicable, cannot be known from here. Its hash goes into the trail."""
    with errors_to_exit(as_json=form is Format.JSON and not files):
        settings = load_settings(config)
        start_logging(settings)
        framework = _framework(name)
        begins, ends = period_of(since, until)
        places: list[tuple[Path | None, Format]] = [(file, _format_of(file, form)) for file in files or ()]
        places = places or [(None, form or Format.MD)]
        if len({file for file, _ in places}) < len(places):
            msg = "the same file is named twice"
            raise InputError(msg, code="input.usage")
        with verified_trail(settings) as trail:
            document = make_report(framework, trail, begins, ends)
        written = [(file, one, RENDERERS[one](document)) for file, one in places]
        facts = facts_of_report(document, [(one, data) for _, one, data in written])
        with ExitStack() as stack:
            publish = [stack.enter_context(_beside(file, data)) for file, _, data in written]
            recorded: Any = _record(settings, facts)
            for one in publish:
                one()
        told = out if files else err  # beside a report on standard output nothing else stands
        told.print(escape(printable(verdict(document))))
        for file, _, data in written:
            where = "" if file is None else f"{escape(str(file))}: "
            told.print(f"{where}SHA-256 {hashlib.sha256(data).hexdigest()}")
        told.print(f"recorded as event {recorded['sequence']} of the trail")


def _format_of(file: Path, form: Format | None) -> Format:
    """The format of a file, by its ending or as it was asked for.

    Raises:
        InputError: Neither tells, or they differ.
    """
    ending = file.suffix.removeprefix(".").lower()
    told = Format(ending) if ending in tuple(Format) else None
    if told is None and form is None:
        msg = f"the name `{file}` does not tell a format"
        raise InputError(msg, code="input.usage", hint=f"end it in .{', .'.join(Format)}, or give `--format`")
    if told is not None and form not in {None, told}:
        msg = f"`{file}` is of the format `{told}` by its name"
        raise InputError(msg, code="input.usage", hint="leave out `--format`")
    return told or form or Format.MD


def _framework(name: str) -> Framework:
    """A framework that comes with Symbi, or one from a file.

    Raises:
        InputError: There is none, or it is wrong.
    """
    if name.endswith(SUFFIX) or os.sep in name:
        return parse_framework(name, read_text(Path(name)))
    return framework_named(name)


def _record(settings: Settings, facts: Mapping[str, JsonValue]) -> JsonValue:
    """Put the hash on the trail, by the owner of the data folder or in its place.

    Raises:
        PolicyDenied: No policy lets this user.
        SymbiError: What else the owner said.
    """
    try:
        owner = connect_owner(settings.runtime.data_dir)
        if owner is not None:
            return ask_owner(owner, OPERATION, facts)
        return run_to_end(partial(_own, settings, facts), settings)
    except PolicyDenied as error:
        error.hint = error.hint or (
            f'there is no report without its hash on the trail; permit `ControlRuntime` on `Resource::"{OPERATION}"`'
        )
        raise


async def _own(settings: Settings, facts: Mapping[str, JsonValue]) -> JsonValue:
    async with open_runtime(settings) as runtime:
        caller = Caller(os.geteuid(), folder_owner=os.geteuid() == folder_owner(settings))
        return await operate(runtime, OPERATIONS, caller, OPERATION, facts)


@contextmanager
def _beside(file: Path | None, data: bytes) -> Iterator[Callable[[], object]]:
    """Have a report written but for its name, so that nothing is recorded which could not be written.

    Raises:
        InputError: It cannot be written.
    """
    if file is None:
        yield partial(_print, data.decode())
        return
    if file.is_dir():
        msg = f"cannot write `{file}`: it is a folder"
        raise InputError(msg, code="input.unwritable")
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        opened = os.open(beside, NEW_FILE, 0o666)
        try:
            with os.fdopen(opened, "wb") as written:
                written.write(data)
            yield partial(beside.replace, file)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write `{file}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@app.command("list")
def list_frameworks(*, as_json: Json = False) -> None:
    """List the frameworks that come with Symbi."""
    with errors_to_exit(as_json=as_json):
        found = [framework_named(name) for name in NAMES]
        if as_json:
            print_json(
                [
                    {
                        "id": f.id,
                        "title": f.title,
                        "citation": f.citation,
                        "controls": len(f.controls),
                        "sha256": f.digest,
                    }
                    for f in found
                ]
            )
            return
        for framework in found:
            title = f"{framework.title} ({framework.citation}), {len(framework.controls)} controls"
            out.print(f"[bold]{framework.id:<8}[/] {escape(title)}")


@app.command("show")
def show(name: Name, *, as_json: Json = False) -> None:
    """Show the controls of a framework, and what evidence is looked for."""
    with errors_to_exit(as_json=as_json):
        framework = _framework(name)
        if as_json:
            print_json(_framework_json(framework))
            return
        out.print(f"[bold]{escape(framework.title)}[/] ({escape(framework.citation)})")
        out.print(escape(framework.about))
        for control in framework.controls:
            out.print()
            out.print(f"[bold]{escape(control.id)} {escape(control.title)}[/] [dim]{escape(control.citation)}[/]")
            out.print(f"  {escape(control.question)}")
            if control.applies is not None:
                out.print(f"  [dim]applies when:[/] {escape(control.applies.claim.looked_for())}")
            for claim in control.claims:
                out.print(f"  - {escape(claim.says)} [dim]{escape(claim.looked_for())}[/]")
            for one in control.cannot_know:
                out.print(f"  [yellow]cannot be known:[/] {escape(one)}")


def _framework_json(framework: Framework) -> dict[str, JsonValue]:
    return {
        "id": framework.id,
        "title": framework.title,
        "citation": framework.citation,
        "about": framework.about,
        "sha256": framework.digest,
        "controls": [
            {
                "id": control.id,
                "title": control.title,
                "citation": control.citation,
                "question": control.question,
                "applies_when": None if control.applies is None else control.applies.claim.looked_for(),
                "evidence": [
                    {"id": claim.id, "says": claim.says, "from": claim.source.value, "test": claim.looked_for()}
                    for claim in control.claims
                ],
                "cannot_know": list(control.cannot_know),
            }
            for control in framework.controls
        ],
    }


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A framework of your own (TOML).")], *, as_json: Json = False
) -> None:
    """Check a framework of your own; exit code 2 names the line and the key that is wrong."""
    with errors_to_exit(as_json=as_json):
        framework = parse_framework(str(file), read_text(file))
        pieces = sum(len(control.claims) for control in framework.controls)
        if as_json:
            print_json(
                {
                    "id": framework.id,
                    "controls": len(framework.controls),
                    "evidence": pieces,
                    "sha256": framework.digest,
                }
            )
        else:
            out.print(f"{escape(framework.id)}: {len(framework.controls)} controls with {pieces} pieces of evidence")


@app.command("init")
def init(
    name: Annotated[str, typer.Argument(help="Its id, and the name of the file: NAME.toml.")],
) -> None:
    """Write a framework of your own to begin with; nothing that exists is touched."""
    with errors_to_exit():
        text = template(name)
        path = Path(f"{name}{SUFFIX}")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            msg = f"`{path}` exists already"
            raise InputError(msg, code="input.exists", hint="give it another name") from error
        except OSError as error:
            msg = f"cannot write `{path}`: {error.strerror or error}"
            raise InputError(msg, code="input.unwritable") from error
        out.print(f"made {escape(str(path))}; try: [bold]symbi compliance report {escape(str(path))}[/]")


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="A report, as JSON; of another format only the hash is checked.")],
    *,
    framework: Annotated[
        Path | None, typer.Option(help="The framework, where it is one of your own, to make the report again.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check a report: its hash is on the trail, its events are proved, made again it is the same. Exit code 4: no."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        data = _read_report(file)
        known = [framework_named(name) for name in NAMES]
        if framework is not None:
            known.append(_framework(str(framework.absolute())))
        with verified_trail(settings) as trail:
            checked = check_report(data, trail, known)
        if as_json:
            print_json(_checked_json(checked))
        else:
            _print_checked(checked)


def _read_report(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        msg = f"cannot read `{file}`: {error.strerror or error}"
        raise InputError(msg, code="input.unreadable") from error
    if len(data) > MAX_REPORT_BYTES:
        msg = f"`{file}` is larger than {MAX_REPORT_BYTES} bytes"
        raise InputError(msg, code="input.size")
    return data


def _checked_json(checked: CheckedReport) -> dict[str, JsonValue]:
    recorded = checked.recorded
    return {
        "verified": True,
        "recorded": {"sequence": recorded.sequence, "event_id": recorded.event_id, "time": recorded.timestamp},
        "framework": recorded.details["framework"],
        "format": checked.form,
        "proofs": checked.proofs,
        "made_again": checked.made_again,
    }


def _print_checked(checked: CheckedReport) -> None:
    recorded = checked.recorded
    details = recorded.details
    out.print(
        f"[bold green]verified[/]: a report on {escape(str(details['framework']))}, made {recorded.timestamp[:19]}Z, "
        f"event {recorded.sequence} of the trail"
    )
    if checked.document is None:
        out.print(f"  its hash alone was checked, as {escape(checked.form)} has no proofs that a program reads")
        return
    out.print(f"  {checked.proofs} events proved against the checkpoint at event {checked.document['trail']['events']}")
    if checked.made_again:
        out.print("  made again from the trail as it stood then, it says the same")
    else:
        out.print("  [yellow]its judgement was not made again[/]: give its framework by `--framework FILE`")
    out.print(f"  {escape(printable(verdict(checked.document)))}")

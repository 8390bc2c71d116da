"""`symbi init`, `check`, `fmt`: agent files and where they live."""

import difflib
import os
import shutil
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_FAILED, EXIT_USAGE, errors_to_exit, out, print_json, show_error
from symbi.config import CONFIG_NAME, load_settings
from symbi.dsl.check import check as check_file
from symbi.dsl.format import format_text
from symbi.dsl.parser import parse
from symbi.dsl.spec import Diagnostic
from symbi.errors import DslError, InputError, Place
from symbi.policy.library import BASE, BUDGETS, GATEWAY, LIBRARY
from symbi.wiring import known_tools, read_text

AGENT: Final = """\
// An agent that greets; run it with: symbi run hello.symbi --input name=Ada
agent hello(name: String) -> String {
    capabilities = ["python", "log"]

    // policies/base.cedar permits what this agent does; a rule here can only take away from it or add to it.
    policy hello {
        deny: log if label.integrity == "untrusted"
    }

    with sandbox = interpreter, timeout = 30.seconds {
        let length = python("len(name)", name = name);
        log(format("greeting {}", name));
        format("Hello, {}! Your name has {} letters.", name, length)
    }
}
"""
CONFIG: Final = """\
# Settings of this folder; `symbi config show --origin` lists every key.
[runtime]
mode = "development"

[policy]
paths = ["policies"] # with "budgets" as well, what is used up over time is bounded: see budgets/budgets.cedar
"""


def init(
    folder: Annotated[Path, typer.Argument(help="Where; the current folder if not given.")] = Path(),
) -> None:
    """Make a symbi.toml, starting policies of the four types and an agent that runs. Nothing that exists is touched."""
    with errors_to_exit():
        written = {
            folder / CONFIG_NAME: CONFIG,
            folder / "policies" / "base.cedar": BASE.text,
            **{folder / "policies" / f"{name}.cedar": source.text for name, source in LIBRARY.items()},
            **{folder / "budgets" / name: source.text for name, source in BUDGETS.items()},
            **{folder / "gateway" / name: source.text for name, source in GATEWAY.items()},
            folder / "hello.symbi": AGENT,
        }
        taken = [path for path in written if path.exists()]
        if taken:
            msg = f"`{taken[0]}` exists already"
            raise InputError(msg, code="input.exists", hint="name an empty folder")
        try:
            for path, text in written.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            msg = f"cannot write in `{folder}`: {error.strerror or error}"
            raise InputError(msg, code="input.unwritable") from error
        for path in written:
            out.print(f"made {escape(str(path))}")
        out.print(f"try: [bold]symbi run {escape(str(folder / 'hello.symbi'))} --input name=Ada[/]")


def check(
    files: Annotated[list[Path], typer.Argument(help="Agent files.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Parse and check agent files; exit code 2 if one has errors."""
    with errors_to_exit(as_json=as_json):
        tools = {str(tool.name) for tool in known_tools(load_settings(config))}
        findings: list[Diagnostic] = []
        for file in files:
            text = read_text(file)
            try:
                findings += check_file(parse(text, str(file)), tools=tools or None)
            except DslError as error:
                place = error.place or Place(str(file), 1, 1)
                findings.append(Diagnostic("error", error.code, error.message, place, error.hint or ""))
        errors = [finding for finding in findings if finding.severity == "error"]
        if as_json:
            print_json(
                [
                    {
                        "severity": f.severity,
                        "code": f.code,
                        "message": f.message,
                        "place": str(f.place),
                        "hint": f.hint,
                    }
                    for f in findings
                ]
            )
        else:
            for finding in findings:
                colour = "red" if finding.severity == "error" else "yellow"
                out.print(
                    f"{escape(str(finding.place))}: [bold {colour}]{finding.severity}:[/] {escape(finding.message)}"
                )
                if finding.hint:
                    out.print(f"  [bold]hint:[/] {escape(finding.hint)}")
            if not findings:
                out.print(f"{len(files)} checked, nothing to say")
        if errors:
            raise typer.Exit(EXIT_USAGE)


def fmt(
    files: Annotated[list[Path], typer.Argument(help="Agent files.")],
    *,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 if a file would change.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print what would change, and change nothing.")] = False,
) -> None:
    """Bring agent files into the one canonical form; comments are kept."""
    changed = 0
    with errors_to_exit():
        for file in files:
            text = read_text(file)
            try:
                formatted = format_text(text, str(file))
            except DslError as error:
                show_error(error)
                raise typer.Exit(EXIT_USAGE) from error
            if formatted == text:
                continue
            changed += 1
            if diff:
                lines = difflib.unified_diff(
                    text.splitlines(keepends=True),
                    formatted.splitlines(keepends=True),
                    str(file),
                    f"{file} (formatted)",
                )
                out.print(escape("".join(lines)), end="")
            elif check_only:
                out.print(f"would change {escape(str(file))}")
            else:
                _replace(file, formatted)
                out.print(f"formatted {escape(str(file))}")
    if changed and (check_only or diff):
        raise typer.Exit(EXIT_FAILED)


def _replace(file: Path, text: str) -> None:
    """Put a text in place of a file's own: all of it, or, on a full disk, nothing."""
    target = file.resolve()
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            beside.write_text(text, encoding="utf-8")
            shutil.copymode(target, beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write `{file}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error

"""What every command shares: where text goes, how errors read, which exit code they give."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape

from symbi.errors import (
    AgentFailed,
    ApprovalPending,
    BudgetExceeded,
    Denied,
    EffectInDoubt,
    InputError,
    LimitExceeded,
    SymbiError,
    Unavailable,
    VerificationError,
)
from symbi.tools.text import printable

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DENIED: Final = 3
EXIT_VERIFICATION: Final = 4
EXIT_UNAVAILABLE: Final = 5
EXIT_HELD: Final = 6
EXIT_APPROVAL: Final = 7
EXIT_INTERNAL: Final = 70
EXIT_INTERRUPTED: Final = 130

EXIT_CODES: Final[Mapping[type[SymbiError], int]] = {
    EffectInDoubt: EXIT_HELD,
    BudgetExceeded: EXIT_HELD,
    ApprovalPending: EXIT_APPROVAL,
    InputError: EXIT_USAGE,
    Denied: EXIT_DENIED,
    VerificationError: EXIT_VERIFICATION,
    Unavailable: EXIT_UNAVAILABLE,
    LimitExceeded: EXIT_FAILED,
    AgentFailed: EXIT_FAILED,
    SymbiError: EXIT_INTERNAL,
}
"""Exit code by class of error; the first class that fits counts."""

EXIT_MEANINGS: Final[Mapping[int, str]] = {
    EXIT_OK: "done",
    EXIT_FAILED: "the agent, a tool or a test failed, or a limit was reached",
    EXIT_USAGE: "the command line, a file or an input is wrong",
    EXIT_DENIED: "policy refused",
    EXIT_VERIFICATION: "a signature, a pin, a certificate or the audit trail does not verify, or something is left of an erased person",
    EXIT_UNAVAILABLE: "something needed is not available: store, sandbox, tool server",
    EXIT_HELD: "the run is held: an effect is in doubt, or its budget is spent, and a person has to decide",
    EXIT_APPROVAL: "the run is held: people have been asked and have not answered; `symbi run --resume` goes on once they have",
    EXIT_INTERNAL: "a defect of Symbi itself",
    EXIT_INTERRUPTED: "interrupted; `symbi run --resume` goes on",
}
"""What each exit code means; the reference page is made from it."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def exit_code(error: SymbiError) -> int:
    """The exit code for an error."""
    return next(code for cls, code in EXIT_CODES.items() if isinstance(error, cls))


def print_json(data: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_json_line(data: object) -> None:
    """One JSON value on a line of its own."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")


def print_text(text: str) -> None:
    """Text of an agent on standard output: as it is, or, on a terminal, so that it cannot steer it."""
    if out.is_terminal:
        text = "\n".join(printable(line) for line in text.split("\n"))
    out.print(escape(text), end="" if text.endswith("\n") else "\n")


def counted(number: int, one: str, many: str = "") -> str:
    """How many of something there are, in words that fit the number."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def show_error(error: SymbiError) -> None:
    """`error: place: message`, and the hint below it, a line each, on standard error."""
    place = f"{error.place}: " if error.place else ""
    err.print(f"[bold red]error:[/] {escape(printable(place + error.message))} [dim]\\[{escape(error.code)}][/]")
    if error.hint:
        err.print(f"  [bold]hint:[/] {escape(printable(error.hint))}")


def error_json(error: SymbiError) -> dict[str, object]:
    """An error for `--json`."""
    return {
        "error": error.message,
        "code": error.code,
        "class": type(error).__name__,
        "hint": error.hint,
        "place": str(error.place) if error.place else None,
        "details": error.fields,
    }


@contextmanager
def errors_to_exit(*, as_json: bool = False) -> Iterator[None]:
    """Turn an error of ours, or an interruption, into its message and exit code."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except SymbiError as error:
        if as_json:
            print_json(error_json(error))
        else:
            show_error(error)
        raise typer.Exit(exit_code(error)) from error
